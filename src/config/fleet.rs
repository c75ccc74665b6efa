//! `[fleet.<name>]`: a credential for each account that a pattern matches, as accounts come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::Config;
use super::credential::{Context, Credential, Draft, Resolved, Spans, Terms, flaw_of_account};
use super::delivery::{Delivery, Names};
use super::pattern::{Pattern, overlap};
use super::problem::quoted;
use super::reader::{At, Entry, Field, Section, described};
use super::{Limits, parts};
use crate::rotation::{Account, CredentialName, Deployment};

/// Those of a credential that mean something to all of a fleet, and its own.
pub(super) const FLEET_KEYS: &[&str] = &[
    "accounts",
    "except",
    "organization",
    "token_type",
    "connected",
    "every",
    "cron",
    "timezone",
    "window",
    "ttl",
    "grace",
    "verify",
    "labels",
    "mode",
    "deliver",
];

/// What is read: the keys of a credential that mean nothing to a fleet are refused with words of their own.
const READ_KEYS: &[&str] = &[
    "accounts",
    "except",
    "account",
    "organization",
    "token_type",
    "connected",
    "every",
    "cron",
    "timezone",
    "window",
    "ttl",
    "grace",
    "verify",
    "labels",
    "mode",
    "renamed_from",
    "adopt",
    "deliver",
];

/// A member's name is made of the fleet's and the account's, and has 63 characters.
const NAME_MAX: usize = 32;
/// Hexadecimal digits of a hash, where an account's name can't be part of a credential's.
const HASH_DIGITS: usize = 12;

/// What all members of a fleet have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountFleet {
    pub accounts: Pattern,
    /// Of those, the ones that are left alone.
    except: Box<[Pattern]>,
    pub terms: Arc<Terms>,
    /// Placeholders still in them.
    templates: Box<[Delivery]>,
}

/// The accounts that each fleet covers now.
pub type Members = BTreeMap<Arc<str>, Vec<Account>>;

/// An account that a fleet's pattern matches and that can't be covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    pub fleet: Arc<str>,
    pub account: Account,
    pub why: String,
}

/// A fleet, and a member as there may be one.
pub(super) struct Drafted {
    pub fleet: AccountFleet,
    pub sample: Resolved,
}

impl AccountFleet {
    pub fn covers(&self, account: &Account) -> bool {
        self.accounts.matches(account) && !self.except.iter().any(|except| except.matches(account))
    }

    /// The places of accounts with this name, which may be a pattern; whether they can be or not.
    pub(super) fn spelled(&self, names: &Names<'_>) -> Vec<Delivery> {
        self.templates.iter().map(|template| template.spelled(names)).collect()
    }

    /// The credential of one account, and its name; the error says why there can't be one.
    fn member(
        &self,
        fleet: &Arc<str>,
        account: &Account,
        deployment: &Deployment,
    ) -> Result<(CredentialName, Credential), String> {
        if let Some(flaw) = flaw_of_account(account.as_str()) {
            return Err(format!("its name {flaw}"));
        }
        let name = member_name(fleet, account)?;
        let names = Names { credential: name.as_str(), account: account.as_str(), deployment: deployment.as_str() };
        let deliveries = self.templates.iter().map(|template| template.filled(&names)).collect::<Result<_, _>>()?;
        let credential = Credential {
            account: account.clone(),
            terms: Arc::clone(&self.terms),
            renamed_from: None,
            adopt: Arc::default(),
            fleet: Some(Arc::clone(fleet)),
            is_admin: false,
            deliveries,
        };
        Ok((name, credential))
    }
}

/// `<fleet>-<account>`. An account's name that does not fit is shortened, and told from others by a hash.
fn member_name(fleet: &str, account: &Account) -> Result<CredentialName, String> {
    let folded = account.folded();
    if let Ok(name) = format!("{fleet}-{folded}").parse() {
        return Ok(name);
    }
    let kept: String =
        folded.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(63 - NAME_MAX - HASH_DIGITS - 2).collect();
    let hash: String = Sha256::digest(&folded).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{fleet}-{kept}-{}", &hash[..HASH_DIGITS]).parse().map_err(|error: crate::rotation::WordError| error.to_string())
}

pub(super) fn fleets<'d>(found: &[Entry<'d>], context: &Context<'d>, defaults: &Draft<'d>) -> BTreeMap<Arc<str>, Drafted> {
    let mut fleets = BTreeMap::new();
    for Entry { name, value } in found {
        let label = format!("[fleet.{}]", name.value);
        let Some(table) = value.value.as_table() else {
            let message = format!("`{label}` is {}", described(value.value));
            context.sheet.error(&value.span, message, "write a table such as `[fleet.tenants]`");
            continue;
        };
        let section = Section::new(context.sheet, table, label, name.span.clone(), READ_KEYS);
        if let Some(fleet) = fleet(name, &section, context, defaults) {
            fleets.insert(Arc::from(name.value), fleet);
        }
    }
    fleets
}

fn fleet<'d>(name: &At<&'d str>, section: &Section<'d>, context: &Context<'d>, defaults: &Draft<'d>) -> Option<Drafted> {
    let named = parts::name(context.sheet, "a fleet", name).filter(|name| {
        let fits = name.len() <= NAME_MAX;
        if !fits {
            let message = format!("the name of {} has {} characters", section.label, name.len());
            context.sheet.error(&section.span, message, format!("{NAME_MAX} are the most: its accounts' names are added to it"));
        }
        fits
    });
    let mut fine = true;
    for key in READ_KEYS.iter().filter(|key| !FLEET_KEYS.contains(key) && section.get(key).is_some()) {
        let help = match *key {
            "account" => "`accounts` is the pattern of its accounts' names",
            _ => "it belongs to a credential of its own",
        };
        context.sheet.error(&section.key_span(key), format!("`{key}` means nothing to {}", section.label), help);
        fine = false;
    }
    let accounts = accounts(section);
    let except = except(section, accounts.as_ref());
    let draft = Draft::read(section, context);
    let label = At::new(section.label.clone(), section.span.clone());
    let (terms, spans, templates) = context.resolve_fleet(&label, &draft, defaults)?;
    let templates = templates.value.items.iter().map(|template| template.delivery.clone()).collect();
    let fleet = AccountFleet { accounts: accounts?, except: except?, terms, templates };
    let sample = sample(named?, &fleet, context, spans)?;
    fine.then_some(Drafted { fleet, sample })
}

/// A member as there may be one: what is wrong with its places is wrong with all.
fn sample(name: &str, fleet: &AccountFleet, context: &Context<'_>, spans: Spans) -> Option<Resolved> {
    // A pattern may be short of what an account's name needs.
    let account = Account::new(&format!("{:x<3}", fleet.accounts.sample()));
    match fleet.member(&Arc::from(name), &account, context.deployment.as_ref()?) {
        Ok((_, credential)) => Some(Resolved { credential, spans }),
        Err(message) => {
            let span = spans.deliveries.first().unwrap_or(&spans.name);
            context.sheet.error(span, message, format!("for an account such as `{account}` of the fleet `{name}`"));
            None
        }
    }
}

/// What an account's name may be, with `*` and `?`.
fn accounts(section: &Section<'_>) -> Option<Pattern> {
    let field = section.text("accounts");
    if matches!(field, Field::Absent) {
        section.missing("accounts", "name the accounts with a pattern: `accounts = \"tenant_*\"`");
    }
    let at = field.set()?;
    let pattern = Pattern::new(at.value);
    let sample = if at.value.contains('*') { format!("{:x<3}", pattern.sample()) } else { pattern.sample() };
    if let Some(flaw) = flaw_of_account(&sample) {
        let message = format!("no account is like the pattern {}: it {flaw}", quoted(at.value));
        let help = "an account's name is 3 to 255 letters, digits and `_`, a letter first; `*` stands for any number of them, `?` for one";
        section.sheet.error(&at.span, message, help);
        return None;
    }
    Some(pattern)
}

/// Which of the accounts are left alone. One that leaves nobody alone is a slip of the pen, and would have tokens issued.
fn except(section: &Section<'_>, accounts: Option<&Pattern>) -> Option<Box<[Pattern]>> {
    let field = section.array("except", "[\"tenant_test_*\"]");
    if field.is_absent() {
        return Some(Box::default());
    }
    let patterns = field.value()?.into_iter().map(|At { value, span }| {
        let help = "a pattern in quotes, as in `except = [\"tenant_test_*\"]`";
        let Some(text) = value.as_str() else {
            section.sheet.error(&span, format!("a part of `except` is {}", described(value)), help);
            return None;
        };
        let accounts = accounts?;
        if !overlap(accounts.as_str(), text) {
            let message =
                format!("`except` has {}, and no account that {} matches is like it", quoted(text), quoted(accounts.as_str()));
            section.sheet.error(&span, message, help);
            return None;
        }
        Some(Pattern::new(text))
    });
    let patterns: Vec<Option<Pattern>> = patterns.collect();
    patterns.into_iter().collect()
}

impl Config {
    /// This configuration with these accounts as the fleets' members, and which of them can't be. A reload of the file
    /// and a change of the accounts come to the same: another configuration.
    pub fn with_members(&self, members: &Members) -> (Self, Vec<LeftOut>) {
        let (mut config, mut left_out) = (self.clone(), Vec::new());
        config.credentials.retain(|_, credential| credential.fleet.is_none());
        for (fleet, block) in &self.fleets {
            let accounts = members.get(fleet).map_or(&[][..], Vec::as_slice);
            for account in accounts.iter().filter(|account| block.covers(account)) {
                let member = block.member(fleet, account, &self.deployment).and_then(|(name, credential)| {
                    match config.credentials.contains_key(&name) {
                        true => Err(format!("its credential would be `{name}`, and there is another of that name")),
                        false => Ok(config.credentials.insert(name, credential)),
                    }
                });
                if let Err(why) = member {
                    left_out.push(LeftOut { fleet: Arc::clone(fleet), account: account.clone(), why });
                }
            }
        }
        config.limits = Limits::of(self.limits.written, self.limits.tokens_per_credential, config.credentials.len());
        (config, left_out)
    }

    /// The credentials (an admin rotation's among them) and the fleets that an account's tokens are rotated for, and its
    /// own section.
    pub fn uses(&self, organization: &str, account: &Account) -> Vec<String> {
        let is_used = |terms: &Terms| &*terms.organization == organization;
        let credentials = self
            .credentials
            .iter()
            .filter(|(_, credential)| credential.fleet.is_none() && credential.account == *account && is_used(&credential.terms));
        let fleets = self.fleets.iter().filter(|(_, fleet)| fleet.covers(account) && is_used(&fleet.terms));
        let credentials = credentials.map(|(name, _)| format!("credential {name}"));
        let kept = self.accounts.get_key_value(account).filter(|(_, kept)| *kept.organization == *organization);
        let kept = kept.map(|(name, _)| format!("section account.{name}"));
        credentials.chain(fleets.map(|(name, _)| format!("fleet {name}"))).chain(kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Unlooked, parse};

    fn config() -> Config {
        let text = r#"
            deployment = "prod"
            [organization.main]
            admin_token = { env = "ROTAD_TEST" }
            [sink.disk.file]
            [credential.tenants-a-0]
            account = "etl_prod"
            deliver = [{ sink = "disk", path = "/run/etl" }]
            [fleet.tenants]
            accounts = "*"
            labels = { team = "customers" }
            deliver = [{ sink = "disk", path = "/run/{account}/{credential}" }]
        "#;
        parse(text, "rotad.toml", &Unlooked { now: jiff::Timestamp::UNIX_EPOCH }).unwrap()
    }

    fn with(accounts: &[&str]) -> (Config, Vec<LeftOut>) {
        let accounts = accounts.iter().map(|name| Account::new(name)).collect();
        config().with_members(&Members::from([(Arc::from("tenants"), accounts)]))
    }

    #[test]
    fn a_member_is_a_credential_with_the_fleet_s_terms_and_its_own_place() {
        let (config, left_out) = with(&["Tenant_7"]);
        assert_eq!(left_out, []);
        let member = &config.credentials[&"tenants-tenant_7".parse().unwrap()];
        assert_eq!(member.account.as_str(), "Tenant_7");
        assert_eq!(member.terms.labels["team"], "customers");
        assert_eq!(member.deliveries[0].identity(&config.sinks), "file:/run/Tenant_7/tenants-tenant_7");
        // Other accounts take the place of these, as often as one likes.
        let (other, _) = config.with_members(&Members::new());
        assert_eq!(other, self::config());
    }

    #[test]
    fn a_name_that_does_not_fit_is_told_from_others_by_a_hash() {
        let long = |end: &str| format!("tenant_{}_{end}", "x".repeat(80));
        let (config, left_out) = with(&[&long("a"), &long("b"), "Müller_1", "Möller_1"]);
        assert_eq!(left_out, []);
        assert_eq!(config.credentials.len(), 5, "{:?}", config.credentials.keys());
        let (again, _) = with(&["MÜLLER_1"]);
        assert!(again.credentials.keys().all(|name| config.credentials.contains_key(name)), "{:?}", again.credentials.keys());
    }

    #[test]
    fn what_the_api_would_refuse_or_a_place_can_t_be_is_left_out_alone() {
        let (config, left_out) = with(&["../../etc", "a-b", "ab", "fine_1"]);
        // The pattern matches none but letters, digits and `_`; a name of two is too short.
        assert_eq!(left_out.iter().map(|left_out| left_out.account.as_str()).collect::<Vec<_>>(), ["ab"]);
        assert!(left_out[0].why.contains("2 characters"), "{left_out:?}");
        assert_eq!(config.credentials.len(), 2);
        let (_, left_out) = with(&[&"x".repeat(255)]);
        assert_eq!(left_out, [], "a folder's name has 255 bytes");
    }

    #[test]
    fn an_account_that_is_excepted_is_not_covered_whatever_its_case() {
        let text = r#"
            deployment = "prod"
            [organization.main]
            admin_token = { env = "ROTAD_TEST" }
            [sink.disk.file]
            [fleet.tenants]
            accounts = "tenant_*"
            except = ["tenant_test_*", "tenant_7"]
            deliver = [{ sink = "disk", path = "/run/{account}" }]
        "#;
        let config = parse(text, "rotad.toml", &Unlooked { now: jiff::Timestamp::UNIX_EPOCH }).unwrap();
        let covered = |name: &str| config.fleets["tenants"].covers(&Account::new(name));
        assert!(covered("tenant_1") && covered("tenant_77") && covered("tenant_test"));
        assert!(!covered("Tenant_7") && !covered("TENANT_TEST_1") && !covered("other"));
    }

    #[test]
    fn the_default_limits_grow_with_the_members() {
        let names: Vec<String> = (0..1000).map(|number| format!("tenant_{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (config, _) = with(&names);
        assert_eq!(config.limits.rotations_per_minute.get(), 21);
        assert_eq!(config.with_members(&Members::new()).0.limits.rotations_per_minute.get(), 10);
    }
}
