//! `synfit devices`: what there is to compute on.

use super::table;
use crate::compute::devices;
use crate::error::{Error, Result};

#[derive(clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let all = devices();
    if args.json {
        let text = serde_json::to_string_pretty(&all).map_err(|e| Error::work("devices", e.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .enumerate()
        .map(|(i, d)| vec![i.to_string(), d.name.clone(), d.backend.clone(), d.kind.clone()])
        .collect();
    println!("{}", table::render(&["index", "name", "backend", "kind"], &rows, 4));
    println!("\n--device takes auto (a real GPU if there is one, else the CPU), gpu, cpu, opengl, or an index;");
    println!("several with commas share the work (0,1 or, three parts to one, 0:3,cpu); all: every real GPU.");
    Ok(())
}
