//! `rotad config example` and `config schema`: what helps with writing a configuration.

use clap::Subcommand;

use super::{Ended, say};
use crate::config::{EXAMPLE, schema};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a commented configuration
    Example,
    /// Print the JSON Schema of the configuration, for editors to complete and check by
    Schema,
}

pub fn run(command: &Command) -> Result<(), Ended> {
    match command {
        Command::Example => say(EXAMPLE),
        Command::Schema => say(&(serde_json::to_string_pretty(&schema())? + "\n")),
    }
    Ok(())
}
