//! temporary
use std::path::Path;
use std::ops::Range;
use crate::error::{Error,Result};
use super::{Shape,Layout,Network};
pub enum ChannelOrder{Rgb,Bgr}
pub struct Dataset{v:Vec<f32>,shape:Shape,u8:bool}
fn npy(path:&Path)->Result<(Vec<usize>,Vec<f64>,bool)>{
    let mut b=std::fs::read(path).map_err(|e|Error::input(path.display().to_string(),e.to_string()))?;
    if path.extension().is_some_and(|e|e=="gz"){let mut o=vec![];std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&b[..]),&mut o).unwrap();b=o;
        let nd=b[3] as usize;let dims:Vec<usize>=(0..nd).map(|i|u32::from_be_bytes(b[4+4*i..8+4*i].try_into().unwrap()) as usize).collect();
        return Ok((dims,b[4+4*nd..].iter().map(|&x|x as f64).collect(),true));}
    let hl=u16::from_le_bytes([b[8],b[9]]) as usize;let h=String::from_utf8_lossy(&b[10..10+hl]).to_string();
    let s=h.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();let dims:Vec<usize>=s.split(',').filter_map(|x|x.trim().parse().ok()).collect();
    let d=&b[10+hl..];
    let u8_=h.contains("|u1");
    let v=if u8_{d.iter().map(|&x|x as f64).collect()}else if h.contains("<f4"){d.chunks(4).map(|c|f32::from_le_bytes(c.try_into().unwrap()) as f64).collect()}else if h.contains("<i8"){d.chunks(8).map(|c|i64::from_le_bytes(c.try_into().unwrap()) as f64).collect()}else{panic!("{h}")};
    Ok((dims,v,u8_))
}
impl Dataset{
    pub fn open(p:&Path,want:Shape,_l:Layout,_o:ChannelOrder)->Result<Self>{let(_,v,u)=npy(p)?;Ok(Self{v:v.into_iter().map(|x|x as f32).collect(),shape:want,u8:u})}
    pub fn uniform(shape:Shape,n:usize,lo:&[f32],hi:&[f32],seed:u64)->Result<Self>{let mut r=fastrand::Rng::with_seed(seed);Ok(Self{v:(0..n*shape.len()).map(|i|{let k=i%shape.len()%lo.len();lo[k]+(hi[k]-lo[k])*r.f32()}).collect(),shape,u8:false})}
    pub fn len(&self)->usize{self.v.len()/self.shape.len()}
    pub fn shape(&self)->Shape{self.shape}
    pub fn is_u8(&self)->bool{self.u8}
    pub fn batch(&self,r:Range<usize>)->Result<Vec<f32>>{let l=self.shape.len();Ok(self.v[r.start*l..r.end*l].to_vec())}
    pub fn select(&mut self,every:usize,n:Option<usize>)->Result<()>{let l=self.shape.len();self.v=self.v.chunks(l).step_by(every).take(n.unwrap_or(usize::MAX)).flatten().copied().collect();Ok(())}
    pub fn validate(&self)->Result<()>{Ok(())}
}
pub fn read_labels(p:&Path)->Result<Vec<i64>>{Ok(npy(p)?.1.into_iter().map(|x|x as i64).collect())}
pub struct Preprocess{pub scale:f32,pub mean:Vec<f32>,pub std:Vec<f32>}
impl Preprocess{pub fn affine(&self,n:&Network)->Result<(Vec<f32>,Vec<f32>)>{let c=n.input_shape().c;let at=|v:&[f32],i:usize|v[i%v.len()];
 Ok(((0..c).map(|i|self.scale/at(&self.std,i)*n.input_scale[i]).collect(),(0..c).map(|i|-at(&self.mean,i)/at(&self.std,i)*n.input_scale[i]+n.input_shift[i]).collect()))}}
