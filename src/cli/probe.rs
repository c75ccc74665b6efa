//! `rotad probe`: answers by use what the API's documentation leaves open, with an account that nobody uses.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::import::organization;
use super::order::ask;
use super::{Ended, admin_client, block_on, load, misused, say};
use crate::config::Config;
use crate::motherduck::{Inquiry, Report};
use crate::rotation::Account;
use crate::snapshot::Build;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A service account that nobody uses: tokens of it are made and revoked
    #[arg(long, value_name = "USERNAME")]
    account: String,
    /// The organization, where several are configured
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// Wait five minutes for a token to expire, and ask what becomes of it
    #[arg(long)]
    until_expiry: bool,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let config = load(path)?;
    let name = organization(&config, arguments.organization.as_deref())?;
    let account = Account::new(&arguments.account);
    refuse_if_used(&config, &name, &account)?;
    let question = format!(
        "Some 20 tokens of `{account}` in organization `{name}` are made and revoked, the longest for five minutes; nothing else is \
         touched. Nobody must use the account."
    );
    ask(&question, account.as_str(), arguments.yes)?;
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| anyhow::anyhow!("no random bits: {error}"))?;
    let (report, outcome) = block_on(async {
        let client = admin_client(&config, &name).await?;
        let inquiry = Inquiry::new(&client, &account, u64::from_be_bytes(nonce));
        anyhow::Ok(inquiry.run(arguments.until_expiry).await)
    })??;
    say(&if arguments.json {
        serde_json::to_string_pretty(&json!({ "build": Build::THIS, "report": report }))? + "\n"
    } else {
        told(&report)
    });
    match (outcome, report.left.is_empty()) {
        (Err(failed), _) => Err(Ended::Failed(anyhow::Error::msg(failed).context("not all was asked"))),
        (Ok(()), true) => Ok(()),
        (Ok(()), false) => {
            Err(Ended::Failed(anyhow::anyhow!("not every token could be revoked again; they expire within minutes")))
        }
    }
}

/// An account that something is delivered for is none to try things with.
fn refuse_if_used(config: &Config, organization: &str, account: &Account) -> Result<(), Ended> {
    match config.uses(organization, account).first() {
        None => Ok(()),
        Some(user) => {
            Err(misused(format!("{user} rotates the tokens of `{account}`: make an account for this that nobody uses")))
        }
    }
}

fn told(report: &Report) -> String {
    let mut text = format!("# What MotherDuck's API does, by rotad {}\n", env!("CARGO_PKG_VERSION"));
    for finding in &report.findings {
        let _ = writeln!(text, "\n## {}\n", finding.question);
        for line in &finding.found {
            let _ = writeln!(text, "- {line}");
        }
        let _ = writeln!(text, "\nrotad {}.", finding.rotad);
    }
    if !report.left.is_empty() {
        let _ = writeln!(text, "\n## Left\n");
        for id in &report.left {
            let _ = writeln!(text, "- token {id} could not be revoked; it expires within minutes");
        }
    }
    text
}
