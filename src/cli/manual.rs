//! `rotad completions` and `rotad man`: made from the command line's own definitions.

use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::{Ended, say};

#[derive(Debug, clap::Args)]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct Man {
    /// Write a page for each command into this directory, instead of the main one to stdout
    #[arg(long, value_name = "DIRECTORY")]
    into: Option<PathBuf>,
}

pub fn completions(arguments: &Completions) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::Arguments::command(), "rotad", &mut script);
    say(&String::from_utf8_lossy(&script));
}

pub fn man(arguments: &Man) -> Result<(), Ended> {
    let command = super::Arguments::command();
    match &arguments.into {
        Some(directory) => clap_mangen::generate_to(command, directory)
            .with_context(|| format!("the pages can't be written into `{}`", directory.display()))?,
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            say(&String::from_utf8_lossy(&page));
        }
    }
    Ok(())
}
