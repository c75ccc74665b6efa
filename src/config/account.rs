//! `[account.<username>]`: a service account that is to be there, and its Ducklings.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Config;
use super::credential::Context;
use super::problem::{Span, quoted};
use super::reader::{At, Entry, Field, Section, described};
use crate::motherduck::{FLOCK_MAX, ReadScaling, ReadWrite, Size, Wanted, new_account};
use crate::rotation::{Account, Mode};

pub(super) const ACCOUNT_KEYS: &[&str] = &["organization", "read_write", "read_scaling", "mode"];
pub(super) const READ_WRITE_KEYS: &[&str] = &["size", "cooldown"];
pub(super) const READ_SCALING_KEYS: &[&str] = &["size", "flock_size", "cooldown"];

/// `rotate` has no meaning for an account.
pub(super) const ACCOUNT_MODES: &[(&str, Mode)] = &[("keep", Mode::Rotate), ("observe", Mode::Observe)];
pub(super) const SIZES: &[(&str, Size)] = &[
    (Size::Pulse.as_str(), Size::Pulse),
    (Size::Standard.as_str(), Size::Standard),
    (Size::Jumbo.as_str(), Size::Jumbo),
    (Size::Mega.as_str(), Size::Mega),
    (Size::Giga.as_str(), Size::Giga),
];

/// An account that is kept as it is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAccount {
    pub organization: Arc<str>,
    pub wanted: Wanted,
    /// Only reported, neither created nor changed.
    pub is_observed: bool,
}

/// The accounts, each with its place: names are equal whatever their case.
pub(super) fn accounts<'d>(found: &[Entry<'d>], context: &Context<'d>) -> BTreeMap<Account, KeptAccount> {
    let mut accounts: BTreeMap<Account, KeptAccount> = BTreeMap::new();
    for Entry { name, value } in found {
        let label = format!("[account.{}]", name.value);
        let Some(table) = value.value.as_table() else {
            let message = format!("`{label}` is {}", described(value.value));
            context.sheet.error(&value.span, message, "write a table such as `[account.tenant_7]`");
            continue;
        };
        let section = Section::new(context.sheet, table, label, name.span.clone(), ACCOUNT_KEYS);
        let kept = kept(&section, context);
        let account = match new_account(name.value) {
            Ok(account) => account,
            Err(_) => {
                let message = format!("{} is no name for an account", quoted(name.value));
                let help = "3 to 255 letters (A to Z), digits and `_`, a letter first, as the API takes them";
                context.sheet.error(&name.span, message, help);
                continue;
            }
        };
        if let Some((other, _)) = accounts.get_key_value(&account) {
            let message = format!("`{other}` and `{account}` are one account: names are equal whatever their case");
            context.sheet.error(&name.span, message, "keep one of the two sections");
            continue;
        }
        if let Some(kept) = kept {
            accounts.insert(account, kept);
        }
    }
    accounts
}

fn kept(section: &Section<'_>, context: &Context<'_>) -> Option<KeptAccount> {
    let organization = section.text("organization").and_then(|at| context.organization(at));
    let organization = context.organization_of(&At::new(section.label.clone(), section.span.clone()), organization.as_ref());
    let (read_write, read_scaling) = (read_write(section), read_scaling(section));
    let mode = section.choice("mode", ACCOUNT_MODES);
    if read_write.is_broken() || read_scaling.is_broken() || mode.is_broken() {
        return None;
    }
    let wanted = Wanted { read_write: read_write.value(), read_scaling: read_scaling.value() };
    Some(KeptAccount { organization: organization?, wanted, is_observed: mode.value() == Some(Mode::Observe) })
}

fn read_write(section: &Section<'_>) -> Field<ReadWrite> {
    section.table("read_write", READ_WRITE_KEYS).and_then(|at| {
        let (size, cooldown) = (size(&at.value), cooldown(&at.value));
        let read_write = ReadWrite { size: size?, cooldown: cooldown.ok()? };
        fine(&at.value, &at.span, read_write.check()).then_some(read_write)
    })
}

fn read_scaling(section: &Section<'_>) -> Field<ReadScaling> {
    section.table("read_scaling", READ_SCALING_KEYS).and_then(|at| {
        let (size, flock_size, cooldown) = (size(&at.value), at.value.number("flock_size", FLOCK_MAX), cooldown(&at.value));
        if flock_size.is_absent() {
            at.value.missing("flock_size", "say how many Ducklings at the most: `flock_size = 4`");
        }
        let read_scaling = ReadScaling { size: size?, flock_size: flock_size.value()?, cooldown: cooldown.ok()? };
        fine(&at.value, &at.span, read_scaling.check()).then_some(read_scaling)
    })
}

fn size(half: &Section<'_>) -> Option<Size> {
    let size = half.choice("size", SIZES);
    if size.is_absent() {
        half.missing("size", "such as `size = \"standard\"`");
    }
    size.value()
}

/// The error is a broken one, which was reported.
fn cooldown(half: &Section<'_>) -> Result<Option<u32>, ()> {
    // What is too long for the number is too long for the API, which the check of the half tells.
    let seconds = half.duration("cooldown").and_then(|at| Some(u32::try_from(at.value.as_secs()).unwrap_or(u32::MAX)));
    if seconds.is_broken() { Err(()) } else { Ok(seconds.value()) }
}

fn fine(half: &Section<'_>, span: &Span, checked: Result<(), String>) -> bool {
    if let Err(wrong) = &checked {
        let help = "the API would refuse it: see `[account.<username>]` in docs/configuration.md";
        half.sheet.error(span, format!("{}: {wrong}", half.label), help);
    }
    checked.is_ok()
}

impl Config {
    /// Whether the account is created when it is missing.
    pub fn keeps(&self, organization: &str, account: &Account) -> bool {
        self.accounts.get(account).is_some_and(|kept| *kept.organization == *organization && !kept.is_observed)
    }
}
