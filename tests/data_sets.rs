//! Data sets: every format gives the same numbers; what cannot be used is refused with the file's name before any work.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::{data, local};
use ndarray::{Array, Array1, Array2, Array3, Array4};
use ndarray_npy::{NpzWriter, write_npy};
use synfit::error::Kind;
use synfit::network::{self, ChannelOrder, Dataset, Layout, Preprocess, Shape, read_labels};

const RGB: ChannelOrder = ChannelOrder::Rgb;

fn open(path: &Path, want: Shape) -> synfit::Result<Dataset> {
    Dataset::open(path, want, Layout::Nchw, RGB)
}

/// The error must be one line of kind Input that holds the file's name and the words.
fn refused<T>(result: synfit::Result<T>, path: &Path, words: &[&str]) {
    let Err(error) = result else { panic!("{} was accepted", path.display()) };
    let line = error.to_string();
    let name = path.file_name().expect("name").to_string_lossy().into_owned();
    assert_eq!(error.kind, Kind::Input, "{line}");
    assert!(line.contains(&name) && !line.contains('\n'), "{line}");
    for word in words {
        assert!(line.contains(word), "expected {word:?} in: {line}");
    }
}

/// Five images 2 x 3 x 4 with values 0, 1, 2, ... (below 127).
fn images() -> Array4<u8> {
    Array::from_shape_fn((5, 2, 3, 4), |(n, c, h, w)| (n * 24 + c * 12 + h * 4 + w) as u8)
}

fn counting(n: usize) -> Vec<f32> {
    (0..n).map(|v| v as f32).collect()
}

const SHAPE: Shape = Shape::new(2, 3, 4);

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    fn bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).expect("write");
        self.path(name)
    }
}

#[test]
fn every_element_type_of_npy_gives_the_same_numbers() {
    let files = Files::new();
    let path = files.path("x.npy");
    let check = |is_u8: bool| {
        let set = open(&path, SHAPE).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((set.len(), set.shape(), set.is_u8()), (5, SHAPE, is_u8));
        assert_eq!(set.batch(0..5).expect("batch"), counting(120));
        assert_eq!(set.batch(2..4).expect("batch"), counting(120)[48..96]);
        set.validate().expect("all finite");
    };
    macro_rules! types {
        ($($t:ty),*) => {$(
            write_npy(&path, &images().mapv(|v| v as $t)).expect("write");
            check(std::any::TypeId::of::<$t>() == std::any::TypeId::of::<u8>());
        )*};
    }
    types!(u8, i8, u16, i16, u32, i32, i64, u64, f32, f64);
    // Half precision and big-endian, which the writer does not know.
    let header = |descr: &str| {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (5, 2, 3, 4), }}\n");
        [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
    };
    let half: Vec<u8> = (0..120).flat_map(|v| half::f16::from_f32(v as f32).to_le_bytes()).collect();
    files.bytes("x.npy", &[header("<f2"), half].concat());
    check(false);
    let big: Vec<u8> = (0..120).flat_map(|v| (v as f32).to_be_bytes()).collect();
    files.bytes("x.npy", &[header(">f4"), big].concat());
    check(false);
}

#[test]
fn shapes_may_differ_by_unit_dimensions_and_flattening() {
    let files = Files::new();
    let path = files.path("x.npy");
    let flat = |n: usize| Array::from_shape_vec((5, n), (0..5 * n).map(|v| v as f32).collect()).expect("shape");
    write_npy(&path, &flat(24)).expect("write");
    assert_eq!(open(&path, SHAPE).expect("flat").batch(1..2).expect("batch"), counting(48)[24..]);
    write_npy(&path, &Array3::<u8>::zeros((7, 28, 28))).expect("write");
    for want in [Shape::new(1, 28, 28), Shape::new(784, 1, 1), Shape::new(1, 1, 784)] {
        assert_eq!(open(&path, want).expect("fits").len(), 7);
    }
    refused(open(&path, Shape::new(1, 28, 27)), &path, &["28 x 28", "1 x 28 x 27"]);
    refused(open(&path, Shape::new(28, 7, 4)), &path, &["28 x 28", "28 x 7 x 4"]);
    write_npy(&path, &Array4::<u8>::zeros((7, 8, 8, 3))).expect("write");
    refused(open(&path, Shape::new(3, 8, 8)), &path, &["8 x 8 x 3", "3 x 8 x 8", "nhwc"]);
}

#[test]
fn channels_last_and_bgr_come_out_channels_first() {
    let files = Files::new();
    let path = files.path("x.npy");
    // Value = 100 * row + 10 * column + channel.
    let hwc = Array::from_shape_fn((2, 2, 4, 3), |(_, h, w, c)| (100 * h + 10 * w + c) as u8);
    write_npy(&path, &hwc).expect("write");
    let want = Shape::new(3, 2, 4);
    let chw = |order: [usize; 3]| -> Vec<f32> {
        let at = |i: usize| (100 * (i / 4 % 2) + 10 * (i % 4) + order[i / 8]) as f32;
        (0..24).map(at).collect()
    };
    let read = |order| Dataset::open(&path, want, Layout::Nhwc, order).expect("open").batch(1..2).expect("batch");
    assert_eq!(read(RGB), chw([0, 1, 2]));
    assert_eq!(read(ChannelOrder::Bgr), chw([2, 1, 0]));
    write_npy(&path, &images()).expect("write");
    refused(Dataset::open(&path, SHAPE, Layout::Nchw, ChannelOrder::Bgr), &path, &["three channels"]);
}

#[test]
fn npz_members_are_found_by_name_stored_or_deflated() {
    let files = Files::new();
    let path = files.path("x.npz");
    let mut npz = NpzWriter::new(fs::File::create(&path).expect("create"));
    npz.add_array("labels", &Array1::from(vec![3i64, 1, 4, 1, 5])).expect("labels");
    npz.add_array("images", &images()).expect("images");
    npz.finish().expect("finish");
    let set = open(&path, SHAPE).expect("stored");
    assert!(set.is_u8());
    assert_eq!(set.batch(4..5).expect("batch"), counting(120)[96..]);
    assert_eq!(set.labels(None).expect("labels"), Some(vec![3, 1, 4, 1, 5]));
    assert_eq!(set.every(2).expect("every").labels(None).expect("labels"), Some(vec![3, 4, 5]));
    // A damaged member is noticed by its checksum.
    let mut bytes = fs::read(&path).expect("read");
    let at = bytes.windows(4).rposition(|w| w == [116, 117, 118, 119]).expect("the last image");
    bytes[at] ^= 1;
    let damaged = files.bytes("damaged.npz", &bytes);
    refused(open(&damaged, SHAPE), &damaged, &["damaged", "images"]);
    bytes.truncate(bytes.len() / 2);
    let cut = files.bytes("cut.npz", &bytes);
    refused(open(&cut, SHAPE), &cut, &["damaged .npz"]);
}

#[test]
fn deflated_npz_of_numpy() {
    // numpy.savez_compressed(x=arange(24, dtype=uint8).reshape(1, 2, 3, 4)): see tests/reference/make.py.
    let set = open(&local("tests/reference/deflated.npz"), SHAPE).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(set.batch(0..1).expect("batch"), counting(24));
}

fn idx(dims: &[u32], kind: u8, values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, dims.len() as u8];
    dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(bytes).expect("gzip");
    gz.finish().expect("gzip")
}

#[test]
fn idx_plain_and_packed() {
    let files = Files::new();
    let values: Vec<u8> = (0..120).collect();
    let plain = idx(&[5, 2, 3, 4], 8, &values);
    for path in [files.bytes("images-idx4-ubyte", &plain), files.bytes("images.gz", &gzip(&plain))] {
        let set = open(&path, SHAPE).unwrap_or_else(|e| panic!("{e}"));
        assert!(set.is_u8());
        assert_eq!(set.batch(0..5).expect("batch"), counting(120));
    }
    let labels = files.bytes("labels.gz", &gzip(&idx(&[5], 8, &[7, 2, 255, 0, 4])));
    assert_eq!(read_labels(&labels).expect("labels"), [7, 2, 255, 0, 4]);
    let packed = gzip(&plain);
    let cut = files.bytes("cut.gz", &packed[..packed.len() - 20]);
    refused(open(&cut, SHAPE), &cut, &["cut short"]);
    let short = files.bytes("short", &plain[..100]);
    refused(open(&short, SHAPE), &short, &["cut short"]);
    // A header that promises more than memory.
    let huge = files.bytes("huge.gz", &gzip(&idx(&[u32::MAX, 2, 3, 4], 8, &values)));
    refused(open(&huge, SHAPE), &huge, &["cut short"]);
    let damaged = files.bytes("damaged", &idx(&[u32::MAX; 40], 8, &[]));
    refused(open(&damaged, SHAPE), &damaged, &["impossible"]);
}

#[test]
fn folders_of_pictures() {
    let files = Files::new();
    let save = |name: &str, shade: u8, w: u32, h: u32| {
        let path = files.path(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        image::RgbImage::from_fn(w, h, |x, y| image::Rgb([shade, x as u8, y as u8])).save(&path).expect("save");
    };
    save("flat/b.png", 20, 4, 3);
    save("flat/a.png", 10, 4, 3);
    save("flat/c.jpg", 30, 4, 3);
    files.bytes("flat/notes.txt", b"no picture");
    let want = Shape::new(3, 3, 4);
    let set = open(&files.path("flat"), want).unwrap_or_else(|e| panic!("{e}"));
    assert!(set.is_u8() && set.len() == 3);
    let pixels = set.batch(0..2).expect("batch");
    assert_eq!(pixels[..12], [10.0; 12]);
    assert_eq!(pixels[12..16], [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(pixels[36], 20.0);
    let named = files.bytes("labels.csv", b"name,label\nc.jpg,3\na.png,1\nb,2\n");
    assert_eq!(set.labels(Some(&named)).expect("labels"), Some(vec![1, 2, 3]));
    let spaced = files.bytes("labels.txt", b"a.png 4\nb.png 5\nc.jpg 6\n");
    assert_eq!(set.labels(Some(&spaced)).expect("labels"), Some(vec![4, 5, 6]));
    let missing = files.bytes("missing.txt", b"a.png 4\nb.png 5\n");
    refused(set.labels(Some(&missing)), &missing, &["c.jpg"]);
    assert_eq!(set.labels(None).expect("none"), None);
    // Grey where the network wants one channel.
    assert_eq!(open(&files.path("flat"), Shape::new(1, 3, 4)).expect("grey").batch(0..1).expect("batch").len(), 12);
    // Classes by folder.
    save("sorted/dog/1.png", 1, 4, 3);
    save("sorted/cat/1.png", 2, 4, 3);
    save("sorted/cat/2.png", 3, 4, 3);
    let set = open(&files.path("sorted"), want).expect("sorted");
    assert_eq!(set.labels(None).expect("labels"), Some(vec![0, 0, 1]));
    // Another size, no picture at all, nothing there.
    save("flat/d.png", 1, 5, 3);
    let wrong = files.path("flat/d.png");
    refused(open(&files.path("flat"), want), &wrong, &["3 high and 5 wide", "3x3x4"]);
    files.bytes("flat/d.png", b"no picture");
    refused(open(&files.path("flat"), want), &wrong, &["cannot be read"]);
    fs::create_dir(files.path("empty")).expect("folder");
    refused(open(&files.path("empty"), want), &files.path("empty"), &["no images"]);
    refused(open(&files.path("lost"), want), &files.path("lost"), &[]);
}

#[test]
fn a_picture_that_is_cut_short_is_found_by_validate() {
    let files = Files::new();
    fs::create_dir(files.path("p")).expect("folder");
    let path = files.path("p/a.png");
    image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([(x * y) as u8, x as u8, y as u8])).save(&path).expect("save");
    let bytes = fs::read(&path).expect("read");
    files.bytes("p/a.png", &bytes[..bytes.len() / 2]);
    let set = open(&files.path("p"), Shape::new(3, 64, 64)).expect("its header is whole");
    refused(set.validate(), &path, &["cannot be read"]);
}

#[test]
fn values_that_are_not_finite_are_found() {
    let files = Files::new();
    let path = files.path("x.npy");
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = images().mapv(f32::from);
        x[[3, 1, 0, 2]] = bad;
        write_npy(&path, &x).expect("write");
        let set = open(&path, SHAPE).expect("shape is right");
        refused(set.validate(), &path, &["image 3", &bad.to_string()]);
        open(&path, SHAPE).expect("open").first(3).expect("first").validate().expect("not among these");
    }
}

#[test]
fn files_that_are_no_arrays_of_numbers_are_refused() {
    let files = Files::new();
    let npy = |descr: &str, order: &str, shape: &str, data: usize| {
        let text = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
        let head = [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
        files.bytes("bad.npy", &[head, vec![0; data]].concat())
    };
    let check = |path: PathBuf, words: &[&str]| refused(open(&path, SHAPE), &path, words);
    check(npy("'<U5'", "False", "(5, 2, 3, 4)", 2400), &["<U5"]);
    check(npy("'|O'", "False", "(5, 2, 3, 4)", 2400), &["|O"]);
    check(npy("[('a', '<f4')]", "False", "(5, 2, 3, 4)", 480), &["records"]);
    check(npy("'<f4'", "True", "(5, 2, 3, 4)", 480), &["ascontiguousarray"]);
    check(npy("'<f4'", "False", "(5, 2, 3, 4)", 479), &["cut short", "480", "479"]);
    check(npy("'<f4'", "False", "(0, 2, 3, 4)", 0), &["no images"]);
    check(npy("'<f4'", "False", "(-5, 2, 3, 4)", 0), &["damaged"]);
    check(npy("'<f4'", "False", "(18446744073709551615, 2, 3, 4)", 0), &["impossible"]);
    check(npy("'<f4'", "False", "()", 4), &["2 x 3 x 4"]);
    check(files.bytes("bad.npy", b"\x93NUMPY\x01\x00\xff\xff"), &["damaged"]);
    check(files.bytes("bad.txt", b"hello"), &["no data set"]);
    check(files.bytes("empty.npy", b""), &["no data set"]);
    check(files.bytes("bad.npz", b"PK\x03\x04 and nothing more"), &["damaged .npz"]);
}

#[test]
fn labels_from_arrays_and_texts() {
    let files = Files::new();
    let npy = files.path("y.npy");
    write_npy(&npy, &Array1::from(vec![1i64, -1, 9])).expect("write");
    assert_eq!(read_labels(&npy).expect("i64"), [1, -1, 9]);
    write_npy(&npy, &Array2::from(vec![[1i32], [2], [3]])).expect("write");
    assert_eq!(read_labels(&npy).expect("column"), [1, 2, 3]);
    write_npy(&npy, &Array1::from(vec![1.0f32, 2.0])).expect("write");
    assert_eq!(read_labels(&npy).expect("whole floats"), [1, 2]);
    write_npy(&npy, &Array1::from(vec![1.0f32, 2.5])).expect("write");
    refused(read_labels(&npy), &npy, &["label 1", "2.5"]);
    write_npy(&npy, &Array2::<u8>::zeros((3, 10))).expect("write");
    refused(read_labels(&npy), &npy, &["[3, 10]"]);
    assert_eq!(read_labels(&files.bytes("y.txt", b"4\n5\n\n6\n")).expect("text"), [4, 5, 6]);
    let bad = files.bytes("bad.txt", b"4\nfive\n");
    refused(read_labels(&bad), &bad, &["line 2", "five"]);
    // As many as there are images, before the selection.
    let x = files.path("x.npy");
    write_npy(&x, &images()).expect("write");
    let set = open(&x, SHAPE).expect("open").first(3).expect("first");
    refused(set.labels(Some(&files.path("y.txt"))), &files.path("y.txt"), &["3 labels", "5 images"]);
}

#[test]
fn selections_keep_images_and_labels_together() {
    let files = Files::new();
    let (x, y) = (files.path("x.npy"), files.path("y.npy"));
    write_npy(&x, &images()).expect("write");
    write_npy(&y, &Array1::from(vec![0i64, 1, 2, 3, 4])).expect("write");
    let all = open(&x, SHAPE).expect("open");
    let first_values = |set: &Dataset| -> Vec<f32> {
        set.batch(0..set.len()).expect("batch").chunks(24).map(|i| i[0] / 24.0).collect()
    };
    let check = |set: synfit::Result<Dataset>, expected: &[f32]| {
        let set = set.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(first_values(&set), expected);
        let labels = set.labels(Some(&y)).expect("labels").expect("some");
        assert_eq!(labels.iter().map(|&l| l as f32).collect::<Vec<_>>(), expected);
    };
    check(all.clone().first(2), &[0.0, 1.0]);
    check(all.clone().first(9), &[0.0, 1.0, 2.0, 3.0, 4.0]);
    check(all.clone().every(2), &[0.0, 2.0, 4.0]);
    check(all.clone().every(2).and_then(|s| s.first(2)), &[0.0, 2.0]);
    check(all.clone().select(&[4, 0, 0]), &[4.0, 0.0, 0.0]);
    refused(all.clone().first(0), &x, &["no images"]);
    refused(all.clone().every(0), &x, &["step"]);
    refused(all.clone().select(&[5]), &x, &["image 5"]);
    assert!(all.batch(3..6).is_err());
}

#[test]
fn generated_inputs_are_uniform_and_repeatable() {
    let shape = Shape::new(2, 1, 1);
    let make = |seed| Dataset::uniform(shape, 4000, &[-1.0, 10.0], &[1.0, 30.0], seed).expect("bounds");
    let set = make(7);
    let all = set.batch(0..4000).expect("batch");
    assert_eq!(all, make(7).batch(0..4000).expect("batch"));
    assert_ne!(all, make(8).batch(0..4000).expect("batch"));
    assert_eq!(set.batch(17..19).expect("batch"), all[34..38]);
    for (feature, lo, hi) in [(0, -1.0f32, 1.0f32), (1, 10.0, 30.0)] {
        let values: Vec<f32> = all.iter().skip(feature).step_by(2).copied().collect();
        assert!(values.iter().all(|v| (lo..=hi).contains(v)));
        let mean = values.iter().sum::<f32>() / 4000.0;
        // Five standard deviations of the mean of uniform numbers.
        assert!((mean - (lo + hi) / 2.0).abs() < 5.0 * (hi - lo) / (12.0f32 * 4000.0).sqrt(), "mean {mean}");
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / 4000.0;
        assert!((variance / ((hi - lo) * (hi - lo) / 12.0) - 1.0).abs() < 0.1, "variance {variance}");
    }
    for (lo, hi) in [(vec![1.0], vec![0.0]), (vec![f32::NAN], vec![1.0]), (vec![0.0; 3], vec![1.0])] {
        assert!(Dataset::uniform(shape, 4, &lo, &hi, 1).is_err(), "{lo:?} {hi:?}");
    }
    assert!(Dataset::uniform(shape, 0, &[0.0], &[1.0], 1).is_err());
    // drawn anew: other ones each time, the same again
    let few = make(7).first(50).expect("some");
    let again = |time| few.anew(time).expect("random").batch(0..50).expect("batch");
    let mut seen = vec![few.batch(0..50).expect("batch"), again(0), again(1)];
    assert_eq!(again(1), seen[2]);
    let mut values: Vec<f32> = seen.drain(..).flatten().step_by(2).collect();
    values.sort_by(f32::total_cmp);
    values.dedup();
    assert!(values.len() > 145, "{}", values.len());
    let digits = open("configs/digits/test_images.npy".as_ref(), Shape::new(1, 8, 8)).expect("digits");
    assert!(few.is_random() && !digits.is_random() && digits.anew(0).is_none());
}

#[test]
fn preprocessing_joins_the_graphs_own_arithmetic() {
    let mut net = network::read(&local("configs/digits/digits_cnn.onnx")).expect("network");
    (net.input_scale, net.input_shift) = (vec![2.0], vec![-1.0]);
    let p = Preprocess { scale: 0.5, mean: vec![3.0], std: vec![4.0] };
    let (a, b) = p.affine(&net).expect("affine");
    // 2 * ((x / 2 - 3) / 4) - 1
    assert_eq!((a, b), (vec![0.25], vec![-2.5]));
    assert_eq!(Preprocess::default().affine(&net).expect("affine"), (vec![2.0], vec![-1.0]));
    for (bad, word) in [
        (Preprocess { mean: vec![0.0; 3], ..Preprocess::default() }, "mean"),
        (Preprocess { std: vec![0.0], ..Preprocess::default() }, "std"),
        (Preprocess { std: vec![], ..Preprocess::default() }, "std"),
        (Preprocess { scale: f32::NAN, ..Preprocess::default() }, "scale"),
    ] {
        let error = bad.affine(&net).expect_err(word);
        assert!(error.kind == Kind::Input && error.to_string().contains(word), "{error}");
    }
}

#[test]
fn the_shared_data_opens() {
    let Some(root) = data(".") else { return };
    let mnist =
        open(&root.join("mnist/t10k-images-idx3-ubyte.gz"), Shape::new(784, 1, 1)).unwrap_or_else(|e| panic!("{e}"));
    let labels = mnist.labels(Some(&root.join("mnist/t10k-labels-idx1-ubyte.gz"))).expect("labels").expect("some");
    assert_eq!((mnist.len(), labels[0], labels[9999]), (10_000, 7, 6));
    let pictures = Dataset::open(
        &root.join("imagenet/pictures192_rgb_nhwc.npz"),
        Shape::new(3, 227, 227),
        Layout::Nhwc,
        ChannelOrder::Bgr,
    );
    let pictures = pictures.unwrap_or_else(|e| panic!("{e}"));
    assert!(pictures.is_u8() && pictures.len() == 192);
    assert_eq!(pictures.labels(None).expect("labels").expect("some").len(), 192);
    let cifar = open(&root.join("cifar10/test2000_images.npy"), Shape::new(3, 32, 32)).expect("cifar");
    assert_eq!((cifar.len(), cifar.batch(1999..2000).expect("batch").len()), (2000, 3072));
}

/// The whole way: images, preprocessing, network. The figure is that of ../shared/data/README.md.
#[test]
fn the_built_in_network_classifies_its_test_images() {
    let net = network::read(&local("configs/digits/digits_cnn.onnx")).expect("network");
    let set = open(&local("configs/digits/test_images.npy"), net.input_shape()).expect("images");
    let labels = set.labels(Some(&local("configs/digits/test_labels.npy"))).expect("labels").expect("some");
    let (a, b) = Preprocess { scale: 0.0625, ..Preprocess::default() }.affine(&net).expect("affine");
    let right = (0..set.len())
        .filter(|&i| {
            let image = set.batch(i..i + 1).expect("batch");
            let x: Vec<f64> = image.iter().map(|&v| (a[0] * v + b[0]) as f64).collect();
            let y = common::reference::forward(&net, &x).swap_remove(net.output);
            let best = (0..y.len()).fold(0, |m, i| if y[i] > y[m] { i } else { m });
            best as i64 == labels[i]
        })
        .count();
    assert_eq!(right, 495, "of {}", set.len());
}
