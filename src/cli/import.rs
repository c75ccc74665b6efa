//! `rotad import`: the configuration with what takes over tokens that were made by hand.
//!
//! It only lists. What it prints is the configuration as it is, with `adopt` and credentials added, and passes `check`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

use super::{Ended, admin_client, block_on, complain, say};
use crate::clock::Clock;
use crate::config::{self, Config, Credential, Sink, System};
use crate::motherduck::{Client, Provider, User};
use crate::rotation::{Account, CredentialName, ListedToken, TokenId, TokenName, TokenType};

/// The longest name of a credential.
const CREDENTIAL_MAX: usize = 63;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A MotherDuck username; may be given several times. Otherwise every service account that has tokens made by hand
    #[arg(long = "account", value_name = "USERNAME")]
    accounts: Vec<String>,
    /// The organization, where several are configured
    #[arg(long, value_name = "NAME")]
    organization: Option<String>,
    /// Where a new credential's token goes, as in `deliver`, such as `{ sink = "prod", secret = "prod/{account}/motherduck" }`;
    /// may be given several times
    #[arg(long = "deliver", value_name = "TABLE")]
    deliveries: Vec<String>,
    /// Write to this file, which must not exist, rather than to the standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print what was found as JSON, the configuration in it
    #[arg(long)]
    json: bool,
}

/// What was found, as JSON has it.
#[derive(Debug, Serialize)]
struct Imported<'i> {
    organization: &'i str,
    /// How many tokens made by hand were found.
    adopted: usize,
    accounts: Vec<ImportedAccount<'i>>,
    /// Where the configuration was written to; else it is in `configuration`.
    output: Option<&'i Path>,
    configuration: Option<&'i str>,
}

#[derive(Debug, Serialize)]
struct ImportedAccount<'i> {
    account: &'i Account,
    tokens: Vec<ImportedToken<'i>>,
}

#[derive(Debug, Serialize)]
struct ImportedToken<'i> {
    id: &'i TokenId,
    name: Option<&'i str>,
    token_type: TokenType,
    created_at: Timestamp,
    /// Null for one that never expires.
    expires_at: Option<Timestamp>,
    /// The deployment and credential that rotad made it for; null for one that was made by hand.
    made_for: Option<String>,
}

impl<'i> ImportedAccount<'i> {
    fn of(found: &'i Found) -> Self {
        let token = |token: &'i ListedToken| ImportedToken {
            id: &token.id,
            name: token.name.as_deref(),
            token_type: token.token_type,
            created_at: token.created_at,
            expires_at: token.expires_at,
            made_for: owner(token).map(|name| name.owner.to_string()),
        };
        Self { account: &found.account, tokens: found.tokens.iter().map(token).collect() }
    }
}

/// What one account has.
struct Found {
    account: Account,
    tokens: Vec<ListedToken>,
}

pub fn run(path: &Path, arguments: &Arguments) -> Result<(), Ended> {
    let world = System { now: Clock::new().now().wall };
    let (text, config) = config::load_unfinished(path, &world).map_err(|problems| Ended::Misused(problems.to_string()))?;
    let organization = organization(&config, arguments.organization.as_deref())?;
    let asked_of = Arc::clone(&organization);
    let deliver = deliver(&config, &arguments.deliveries)?;
    let found = block_on(async { list(&*admin_client(&config, &organization).await?, arguments).await })??;
    let mut draft = Draft { config: &config, organization, deliver, text, notes: String::new(), new: String::new(), adopted: 0 };
    found.iter().for_each(|found| draft.take(found));
    let adopted = draft.adopted;
    let printed = draft.finish();
    let shown = path.display().to_string();
    config::parse(&printed, &format!("{shown}, as imported"), &world)
        .map_err(|problems| Ended::Misused(format!("what would be printed does not pass `rotad check`:\n{problems}")))?;
    match &arguments.output {
        None if arguments.json => {}
        None => say(&printed),
        Some(output) => {
            let file = std::fs::OpenOptions::new().write(true).create_new(true).open(output);
            let mut file = file.with_context(|| {
                format!("`{}` can't be created: name a file that is not there yet, in a directory that is", output.display())
            })?;
            file.write_all(printed.as_bytes()).with_context(|| format!("`{}` can't be written", output.display()))?;
        }
    }
    if arguments.json {
        let imported = Imported {
            organization: &asked_of,
            adopted,
            accounts: found.iter().map(ImportedAccount::of).collect(),
            output: arguments.output.as_deref(),
            configuration: arguments.output.is_none().then_some(printed.as_str()),
        };
        say(&(serde_json::to_string_pretty(&imported)? + "\n"));
        return Ok(());
    }
    complain(&format!(
        "{adopted} tokens made by hand are listed for adoption. Read what was printed: remove the ids that are to live on, and \
         see that `deliver` names every place where each account's token is in use"
    ));
    Ok(())
}

pub(super) fn organization(config: &Config, asked: Option<&str>) -> Result<Arc<str>, Ended> {
    let names = || config.organizations.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let found = match asked {
        Some(asked) => config.organizations.get_key_value(asked),
        None if config.organizations.len() == 1 => config.organizations.first_key_value(),
        None => return Err(Ended::Misused(format!("rotad: say which organization with `--organization`: {}", names()))),
    };
    let name = found.map(|(name, _)| name.clone());
    name.ok_or_else(|| Ended::Misused(format!("rotad: no such organization is configured; there are {}", names())))
}

/// The entries of `deliver` for new credentials: as asked for, or a place in the first sink.
fn deliver(config: &Config, asked: &[String]) -> Result<Vec<String>, Ended> {
    if let Some(odd) = asked.iter().find(|table| table.contains(['\n', '\r'])) {
        return Err(Ended::Misused(format!("rotad: `--deliver` takes one line, and not `{}`", odd.escape_debug())));
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let Some((name, sink)) = config.sinks.first_key_value() else {
        return Err(Ended::Misused("rotad: no sink is configured that a token could be delivered to: add one first".to_owned()));
    };
    let place = match sink {
        Sink::Aws(_) => r#"secret = "motherduck/{credential}""#,
        Sink::Vault(_) => r#"path = "motherduck/{credential}""#,
        Sink::File(_) => r#"path = "/var/lib/rotad/tokens/{credential}""#,
    };
    Ok(vec![format!("{{ sink = \"{name}\", {place}, take_over = true }}")])
}

async fn list(client: &Client, arguments: &Arguments) -> anyhow::Result<Vec<Found>> {
    let all = arguments.accounts.is_empty();
    let accounts = match all {
        false => arguments.accounts.iter().map(|name| Account::new(name)).collect(),
        true => {
            let users = client.users().await.map_err(anyhow::Error::msg)?;
            let usable = users.into_iter().filter(User::is_usable_service);
            usable.map(|user| user.username).collect::<Vec<_>>()
        }
    };
    let mut found: Vec<Found> = Vec::new();
    for account in accounts {
        if found.iter().any(|known| known.account == account) {
            continue;
        }
        let tokens = client.list(&account).await.complete();
        let tokens = tokens.map_err(|failed| anyhow::anyhow!("{failed}; nothing was printed"))?;
        found.push(Found { account, tokens });
    }
    if all {
        found.retain(|found| found.tokens.iter().any(|token| owner(token).is_none()));
    }
    Ok(found)
}

/// The name of a token that rotad made, here or elsewhere.
fn owner(token: &ListedToken) -> Option<TokenName> {
    TokenName::parse(token.name.as_deref()?)
}

/// The configuration in the making.
struct Draft<'c> {
    config: &'c Config,
    organization: Arc<str>,
    deliver: Vec<String>,
    text: String,
    /// What can't be written into the tables that are there.
    notes: String,
    new: String,
    adopted: usize,
}

impl Draft<'_> {
    fn take(&mut self, found: &Found) {
        let of_type = |token_type: TokenType| found.tokens.iter().filter(move |token| token.token_type == token_type);
        for token_type in [TokenType::ReadWrite, TokenType::ReadScaling] {
            let by_hand: Vec<&ListedToken> = of_type(token_type).filter(|token| owner(token).is_none()).collect();
            if by_hand.is_empty() {
                continue;
            }
            self.adopted += by_hand.len();
            let mut block = String::from("adopt = [\n");
            by_hand.iter().for_each(|token| {
                let _ = writeln!(block, "  \"{}\", # {}", token.id, described(token));
            });
            block.push_str("]\n");
            match self.credential_of(&found.account, token_type) {
                Some((name, credential)) => {
                    let (name, lists_some) = (name.clone(), !credential.adopt.is_empty());
                    self.amend(&name, lists_some, &block);
                }
                None => self.add(&found.account, token_type, &block),
            }
        }
        for token in found.tokens.iter() {
            let Some(name) = owner(token) else { continue };
            let _ = writeln!(
                self.notes,
                "# {}: {}; rotad made it for `{}`: it is not adopted",
                token.id,
                described(token),
                name.owner
            );
        }
        if found.tokens.is_empty() {
            let _ = writeln!(self.notes, "# account {} has no tokens", found.account);
        }
    }

    fn credential_of(&self, account: &Account, token_type: TokenType) -> Option<(&CredentialName, &Credential)> {
        self.config.credentials.iter().find(|(_, credential)| {
            let terms = &credential.terms;
            credential.account == *account && terms.token_type == token_type && terms.organization == self.organization
        })
    }

    /// Adds `adopt` to the table of a credential that is configured; where its header is written in another way, or it
    /// lists some already, a person has to.
    fn amend(&mut self, name: &CredentialName, lists_some: bool, block: &str) {
        let header = format!("[credential.{name}]");
        let mut at = 0;
        let line = self.text.split_inclusive('\n').find_map(|line| {
            at += line.len();
            (line.trim() == header && line.ends_with('\n')).then_some(at)
        });
        match line.filter(|_| !lists_some) {
            Some(end) => self.text.insert_str(end, block),
            None => {
                let commented: String = block.lines().map(|line| format!("# {line}\n")).collect();
                let _ = write!(self.notes, "# Into {header}, by hand:\n{commented}");
            }
        }
    }

    fn add(&mut self, account: &Account, token_type: TokenType, block: &str) {
        let name = self.name_for(account, token_type);
        let _ = write!(self.new, "\n[credential.{name}]\naccount = \"{account}\"\n");
        if self.config.organizations.len() > 1 {
            let _ = writeln!(self.new, "organization = \"{}\"", self.organization);
        }
        if token_type != TokenType::ReadWrite {
            let _ = writeln!(self.new, "token_type = \"{token_type}\"");
        }
        self.new.push_str(block);
        self.new.push_str("# Every place where that token is in use now; `take_over` lets rotad overwrite what stands there.\n");
        let _ = writeln!(self.new, "deliver = [{}]", self.deliver.join(", "));
    }

    /// A name that nothing bears yet, like the account's.
    fn name_for(&self, account: &Account, token_type: TokenType) -> String {
        let fits = |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '_' | '-') { c } else { '_' };
        let suffix = if token_type == TokenType::ReadScaling { "-rs" } else { "" };
        let stem: String = account.as_str().to_lowercase().chars().map(fits).take(CREDENTIAL_MAX - 8).collect();
        let taken = |name: &str| {
            self.config.credentials.keys().any(|known| known.as_str() == name)
                || self.new.contains(&format!("[credential.{name}]\n"))
        };
        let numbered = (1_u32..).map(|number| match number {
            1 => format!("{stem}{suffix}"),
            number => format!("{stem}{suffix}-{number}"),
        });
        numbered.into_iter().find(|name| !taken(name)).unwrap_or(stem)
    }

    fn finish(self) -> String {
        let mut text = self.text;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if !(self.notes.is_empty() && self.new.is_empty()) {
            text.push_str("\n# From `rotad import`.\n");
        }
        text + &self.notes + &self.new
    }
}

/// A token for a person to recognise it by, in one line of a comment.
fn described(token: &ListedToken) -> String {
    let name = token.shown_name();
    let expires = token.expires_at.map_or_else(|| "never expires".to_owned(), |at| format!("expires {at:.0}"));
    format!("`{name}`, {}, created {:.0}, {expires}", token.token_type, token.created_at)
}
