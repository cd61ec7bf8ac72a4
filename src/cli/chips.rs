//! `synfit chips [NAME]`: the built-in chips.

use super::table;
use crate::chip::Chip;
use crate::error::{Error, Result};

#[derive(clap::Args)]
pub struct Args {
    /// A built-in chip or a chip file: print its whole description as TOML
    name: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(name) = &args.name {
        let chip = Chip::load(name)?;
        print!("{}", toml::to_string(&chip).map_err(|e| Error::work(name, e.to_string()))?);
        return Ok(());
    }
    let rows = Chip::built_in()
        .map(|name| Chip::load(name).map(|c| vec![c.name, c.description]))
        .collect::<Result<Vec<_>>>()?;
    println!("{}", table::render(&["chip", "description"], &rows, 2));
    println!("\n`synfit chips NAME` prints a chip as TOML; --chip also takes a file of that form.");
    Ok(())
}
