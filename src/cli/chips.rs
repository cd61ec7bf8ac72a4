//! `synfit chips [NAME]`: the built-in chips, or one chip's file with all of its sources.

use super::table;
use crate::chip::{Chip, fit_rules};
use crate::error::Result;

#[derive(clap::Args)]
pub struct Args {
    /// A built-in chip or a chip file: print its description, with the source of every table
    name: Option<String>,
}

pub fn run(args: &Args) -> Result<()> {
    if let Some(name) = &args.name {
        let chip = Chip::load(name)?;
        print!("{}", Chip::text(name)?);
        for origin in chip.origins.iter().filter(|o| !o.unverified.is_empty()) {
            println!("# unverified: {} of {}", origin.unverified.join(", "), table_name(&origin.table));
        }
        for field in chip.unknown() {
            println!("# unknown: {field}");
        }
        match fit_rules(&chip) {
            Ok(_) => println!("# converts: yes"),
            Err(e) => println!("# converts: no; {}", e.message),
        }
        return Ok(());
    }
    let rows = Chip::built_in()
        .map(|name| {
            let chip = Chip::load(name)?;
            let converts = if fit_rules(&chip).is_ok() { "yes" } else { "no" };
            Ok(vec![chip.name, converts.to_string(), chip.description])
        })
        .collect::<Result<Vec<_>>>()?;
    println!("{}", table::render(&["chip", "converts", "description"], &rows, 3));
    println!("\n`synfit chips NAME` prints a chip's file with its sources; --chip also takes a file of that form.");
    Ok(())
}

fn table_name(table: &str) -> String {
    if table.is_empty() { "the file".to_string() } else { format!("[{table}]") }
}
