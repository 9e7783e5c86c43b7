use super::*;
pub struct Experiment<C> { pub settings: Settings, pub paper: C, pub resolved: Resolved, pub file: std::path::PathBuf }
pub struct Resolved;
impl Resolved { pub fn yaml(&self)->String{todo!()} pub fn with_origins(&self)->String{todo!()} pub fn hash(&self)->String{todo!()} pub fn origin(&self,_:&str)->String{todo!()} pub fn leaves(&self)->Vec<(String,serde_json::Value)>{todo!()} }
pub fn load<C: serde::de::DeserializeOwned>(_f:&std::path::Path,_o:&[String])->crate::Result<Experiment<C>>{todo!()}
pub fn diff(_a:&Resolved,_b:&Resolved)->Vec<String>{todo!()}
pub fn sweep(_s:&[String])->crate::Result<Vec<Vec<String>>>{todo!()}
