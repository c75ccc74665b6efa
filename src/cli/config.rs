//! `rotad config example`: a configuration to begin with.

use clap::Subcommand;

use super::{Ended, say};
use crate::config::EXAMPLE;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a commented configuration
    Example,
}

pub fn run(command: &Command) -> Result<(), Ended> {
    match command {
        Command::Example => say(EXAMPLE),
    }
    Ok(())
}
