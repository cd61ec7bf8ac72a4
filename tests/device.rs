//! Devices and buffers: what goes up comes down, on the GPU (a software one will do) and on the CPU.

mod common;

use common::devices;
use synfit::compute::{self, Choice, Device, Limits};

#[test]
fn round_trips() {
    for dev in devices() {
        let data: Vec<f32> = (0..1001).map(|i| i as f32 - 500.5).collect();
        let mut b = dev.upload(&data).unwrap();
        assert_eq!(dev.download(&b).unwrap(), data);
        assert_eq!(dev.download_range(&b, 7, 3).unwrap(), data[7..10]);
        dev.write(&mut b, 999, &[1.0, 2.0]).unwrap();
        assert_eq!(dev.download_range(&b, 998, 3).unwrap(), [497.5, 1.0, 2.0]);
        assert!(dev.write(&mut b, 1000, &[1.0, 2.0]).is_err());
        let mut c = dev.zeros::<f32>(5).unwrap();
        dev.copy(&b, 998, &mut c, 2, 3).unwrap();
        assert_eq!(dev.download(&c).unwrap(), [0.0, 0.0, 497.5, 1.0, 2.0]);
        assert!(dev.copy(&b, 999, &mut c, 0, 3).is_err());
    }
}

/// Kernels, copies, writes and reads are done in their order, however many of them go to the GPU together.
#[test]
fn commands_keep_their_order() {
    for dev in devices() {
        let [mut a, mut b] = [0.0, 0.0].map(|v| dev.upload(&[v; 6]).unwrap());
        let mut want = [0.0; 6];
        for n in 0..200 {
            let v = n as f32;
            dev.fill(&mut a, v).unwrap();
            want[n % 6] = v;
            dev.copy(&a, 0, &mut b, n % 6, 1).unwrap();
            if n % 7 == 0 {
                dev.write(&mut b, 5, &[-v]).unwrap();
                want[5] = -v;
            }
            // dropped before the GPU has done anything with it
            let c = dev.upload(&[v + 0.5]).unwrap();
            if n % 11 == 0 {
                dev.copy(&c, 0, &mut b, 4, 1).unwrap();
                want[4] = v + 0.5;
            }
            if n % 50 == 0 {
                assert_eq!(dev.download(&b).unwrap(), want, "{n} on {dev:?}");
            }
        }
        assert_eq!(dev.download(&b).unwrap(), want, "{dev:?}");
    }
}

#[test]
fn empty_buffers_are_fine() {
    for dev in devices() {
        let b = dev.upload::<i32>(&[]).unwrap();
        assert_eq!(dev.download(&b).unwrap(), Vec::<i32>::new());
        assert!(dev.poisoned::<u32>(0).unwrap().is_empty());
    }
}

#[test]
fn poison_shows() {
    for dev in devices() {
        let b = dev.poisoned::<f32>(1000).unwrap();
        assert!(dev.download(&b).unwrap().iter().all(|v| v.is_nan()));
        let b = dev.poisoned::<i32>(70_000 * 256).unwrap();
        assert!(dev.download(&b).unwrap().iter().all(|&v| v == 0x7fc0_dead));
    }
}

#[test]
fn the_meter_counts_what_is_held() {
    // fresh ones: other tests use the shared ones at the same time
    for dev in [Device::cpu(), Device::open(Choice::Gpu).unwrap()] {
        let a = dev.zeros::<f32>(1000).unwrap();
        drop(a);
        let _b = dev.zeros::<f32>(250).unwrap();
        assert_eq!(dev.peak_bytes(), 4000);
    }
}

#[test]
fn choices_parse_and_resolve() {
    assert_eq!("auto".parse::<Choice>().unwrap(), Choice::Auto);
    assert_eq!("3".parse::<Choice>().unwrap(), Choice::Index(3));
    assert!("fast".parse::<Choice>().is_err());
    let all = compute::devices();
    assert_eq!(all.last().unwrap().backend, "cpu");
    assert!(!Device::open(Choice::Index(all.len() - 1)).unwrap().is_gpu());
    assert!(Device::open(Choice::Index(all.len())).is_err());
    assert!(Device::open(Choice::Gpu).unwrap().is_gpu());
    assert_ne!(Device::open(Choice::Auto).unwrap().info().kind, "software");
}

#[test]
fn a_buffer_beyond_the_limit_is_an_error() {
    let dev = Device::open(Choice::Gpu).unwrap();
    assert!(dev.zeros::<f32>(dev.max_buffer_bytes() as usize / 4 + 1).is_err());
}

#[test]
fn limits_are_what_was_asked_for() {
    let open = |limits| Device::open_with(Choice::Gpu, limits).unwrap();
    let default = open(Limits::Default);
    assert_eq!(default.max_buffer_bytes(), 128 << 20);
    assert!(open(Limits::Own).max_buffer_bytes() >= 128 << 20);
    let small = open(Limits::Buffer(4096));
    assert_eq!(small.max_buffer_bytes(), 4096);
    assert!(small.zeros::<f32>(1024).is_ok() && small.zeros::<f32>(1025).is_err());
    assert!(!Device::open_with(Choice::Cpu, Limits::Default).unwrap().is_gpu());
}

/// Threads that share a device may wait for one another's downloads.
#[test]
fn threads_share_a_device() {
    for dev in devices() {
        std::thread::scope(|scope| {
            for t in 0..8 {
                let dev = dev.clone();
                scope.spawn(move || {
                    for n in 0..1000 {
                        let data = vec![t * 1000 + n; 64];
                        assert_eq!(dev.download(&dev.upload(&data).unwrap()).unwrap(), data);
                    }
                });
            }
        });
    }
}
