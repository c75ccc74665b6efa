//! An organization's service accounts themselves: created, given Ducklings (their compute), looked at, deleted.
//!
//! Documented: creating, deleting, reading and replacing the Ducklings, the accounts that run some. Observed: names of at
//! least three characters that are equal whatever their case, cooldowns that `pulse` does not take, unknown fields that
//! are dropped in silence. Third parties alone tell what a taken name is answered with.

use std::fmt;
use std::str::FromStr;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer, Asked};
use super::client::{Client, Request, Unanswered};
use super::observer::Operation;
use crate::json::Object;
use crate::rotation::{Account, Failed, Reason};

/// The most Ducklings of a flock (documented; a plan may allow fewer).
pub const FLOCK_MAX: u32 = 64;
/// A cooldown's seconds (documented).
const COOLDOWN: std::ops::RangeInclusive<u32> = 60..=86_400;
/// A name's characters: documented, and at least three by what the API was seen to check.
const NAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=255;

/// A name that everybody who was seen to check names lets pass: ASCII letters, digits and `_`, a letter first. The
/// API's patterns take letters of other scripts too; the official provider does not.
///
/// # Errors
/// What would be right.
pub fn new_account(username: &str) -> Result<Account, String> {
    let fits = username.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !fits || !username.starts_with(|c: char| c.is_ascii_alphabetic()) || !NAME_LENGTH.contains(&username.len()) {
        return Err(format!(
            "`{}` is no account's name: it has {} to {} letters (A to Z), digits and `_`, and begins with a letter",
            username.escape_debug(),
            NAME_LENGTH.start(),
            NAME_LENGTH.end()
        ));
    }
    Ok(Account::new(username))
}

/// The size of a Duckling (documented).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    Pulse,
    Standard,
    Jumbo,
    Mega,
    Giga,
}

impl Size {
    pub const ALL: [Self; 5] = [Self::Pulse, Self::Standard, Self::Jumbo, Self::Mega, Self::Giga];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pulse => "pulse",
            Self::Standard => "standard",
            Self::Jumbo => "jumbo",
            Self::Mega => "mega",
            Self::Giga => "giga",
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|size| size.as_str() == text);
        known.ok_or_else(|| format!("`{}` is no size: there are {}", text.escape_debug(), Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// The compute that an account's reads and writes run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadWrite {
    #[serde(rename = "instance_size")]
    pub size: Size,
    /// MotherDuck's own choice when absent; never with `pulse`.
    #[serde(rename = "cooldown_seconds", default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<u32>,
}

impl ReadWrite {
    /// As `Ducklings::check`.
    ///
    /// # Errors
    /// What would be right.
    pub fn check(&self) -> Result<(), String> {
        check(self.size, self.cooldown)
    }

    fn holds(&self, asked: &Self) -> bool {
        self.size == asked.size && cooldown_holds(self.cooldown, asked.cooldown)
    }
}

fn check(size: Size, cooldown: Option<u32>) -> Result<(), String> {
    match cooldown {
        Some(_) if size == Size::Pulse => Err("`pulse` takes no cooldown".to_owned()),
        Some(seconds) if !COOLDOWN.contains(&seconds) => Err("a cooldown is one minute to one day".to_owned()),
        _ => Ok(()),
    }
}

fn cooldown_holds(found: Option<u32>, asked: Option<u32>) -> bool {
    asked.is_none() || asked == found
}

/// The compute of an account's read-scaling tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadScaling {
    #[serde(rename = "instance_size")]
    pub size: Size,
    pub flock_size: u32,
    /// As of [`ReadWrite`].
    #[serde(rename = "cooldown_seconds", default, skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<u32>,
}

impl ReadScaling {
    /// As `Ducklings::check`.
    ///
    /// # Errors
    /// What would be right.
    pub fn check(&self) -> Result<(), String> {
        check(self.size, self.cooldown)?;
        if self.flock_size > FLOCK_MAX {
            return Err(format!("a flock has 0 to {FLOCK_MAX} Ducklings"));
        }
        Ok(())
    }

    fn holds(&self, asked: &Self) -> bool {
        self.size == asked.size && self.flock_size == asked.flock_size && cooldown_holds(self.cooldown, asked.cooldown)
    }
}

/// Both halves: the API replaces them together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ducklings {
    pub read_write: ReadWrite,
    pub read_scaling: ReadScaling,
}

impl Ducklings {
    /// Whether the API can take them, as far as that is known without asking: a plan may allow less.
    ///
    /// # Errors
    /// What would be right.
    pub fn check(&self) -> Result<(), String> {
        self.read_write.check()?;
        self.read_scaling.check()
    }

    /// Whether these are what `asked` asks for: a cooldown that it leaves out may be any.
    pub fn hold(&self, asked: &Self) -> bool {
        self.read_write.holds(&asked.read_write) && self.read_scaling.holds(&asked.read_scaling)
    }
}

/// What is asked for of an account's Ducklings: a half that is left out may be any, and so may its cooldown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    pub read_write: Option<ReadWrite>,
    pub read_scaling: Option<ReadScaling>,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let halves = [self.read_write.as_ref().map(ToString::to_string), self.read_scaling.as_ref().map(ToString::to_string)];
        f.write_str(&halves.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

impl Wanted {
    /// What to replace these Ducklings with, both halves; `None` if they are as asked. A half that is as asked is sent as
    /// it was found, so that a cooldown that nobody asked for stays.
    pub fn instead_of(&self, found: &Ducklings) -> Option<Ducklings> {
        let read_write = self.read_write.as_ref().filter(|asked| !found.read_write.holds(asked));
        let read_scaling = self.read_scaling.as_ref().filter(|asked| !found.read_scaling.holds(asked));
        if read_write.is_none() && read_scaling.is_none() {
            return None;
        }
        Some(Ducklings {
            read_write: read_write.unwrap_or(&found.read_write).clone(),
            read_scaling: read_scaling.unwrap_or(&found.read_scaling).clone(),
        })
    }
}

impl fmt::Display for Ducklings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.read_write, self.read_scaling)
    }
}

impl fmt::Display for ReadWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read/write {}", self.size.as_str())?;
        write_cooldown(f, self.cooldown)
    }
}

impl fmt::Display for ReadScaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read scaling {}, flock of {}", self.size.as_str(), self.flock_size)?;
        write_cooldown(f, self.cooldown)
    }
}

fn write_cooldown(f: &mut fmt::Formatter<'_>, cooldown: Option<u32>) -> fmt::Result {
    cooldown.map_or(Ok(()), |seconds| write!(f, ", cooldown {seconds} s"))
}

/// An account with Ducklings that run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub username: Account,
    /// Each as `rw active` or `rs.0 cooldown`.
    pub ducklings: Vec<String>,
}

/// What became of a change to an account itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountOutcome {
    Done,
    /// Nothing was done.
    Refused(Failed),
    /// It may have been done, or may be yet: look before it is asked for again.
    Unknown(Failed),
}

impl Client {
    /// Creates a service account, asking once.
    pub async fn create_account(&self, account: &Account) -> AccountOutcome {
        let asked = self.asked(Operation::CreateAccount, account);
        let body = serde_json::json!({ "username": account.as_str() });
        let request = Request { asked, method: Method::POST, url: self.users_url(), body: Some(body.to_string().into_bytes()) };
        let (answer, bearer) = match self.ask(&request).await {
            Ok(answered) => answered,
            Err(unanswered) => return lost(unanswered),
        };
        if (200..300).contains(&answer.status) {
            return named(asked, &answer, account);
        }
        let taken = answer.status == 409 || (answer.status == 400 && answer::names_a_conflict(&answer));
        let failed = answer::refusal(asked, &answer, &bearer);
        let failed = if taken { Failed { reason: Reason::NameTaken, ..failed } } else { failed };
        refused(&answer, failed)
    }

    /// Deletes an account with its data for good and revokes its tokens.
    pub async fn delete_account(&self, account: &Account) -> AccountOutcome {
        let asked = self.asked(Operation::DeleteAccount, account);
        let url = match self.user_url(asked) {
            Ok(url) => url,
            Err(failed) => return AccountOutcome::Refused(failed),
        };
        match self.ask(&Request { asked, method: Method::DELETE, url, body: None }).await {
            Ok((answer, _)) if (200..300).contains(&answer.status) => AccountOutcome::Done,
            Ok((answer, bearer)) => refused(&answer, answer::refusal(asked, &answer, &bearer)),
            Err(unanswered) => lost(unanswered),
        }
    }

    /// An account's Ducklings. An account that there is not is [`Reason::NoSuchAccount`]: this is how the official
    /// provider looks for one (observed), since there is no other call for it.
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn ducklings(&self, account: &Account) -> Result<Ducklings, Failed> {
        let asked = self.asked(Operation::Ducklings, account);
        let url = format!("{}/instances", self.user_url(asked)?);
        self.converse(Request { asked, method: Method::GET, url, body: None }).await
    }

    /// Replaces an account's Ducklings, both halves of them, and gives what the API says that they are now.
    ///
    /// # Errors
    /// Why they may not be what was asked for. Asking again is harmless.
    pub async fn set_ducklings(&self, account: &Account, ducklings: &Ducklings) -> Result<Ducklings, Failed> {
        let asked = self.asked(Operation::SetDucklings, account);
        ducklings.check().map_err(|wrong| asked.failed(Reason::Rejected, &wrong))?;
        let url = format!("{}/instances", self.user_url(asked)?);
        let body = Some(serde_json::json!({ "config": ducklings }).to_string().into_bytes());
        let found: Ducklings = self.converse(Request { asked, method: Method::PUT, url, body }).await?;
        if found.hold(ducklings) {
            return Ok(found);
        }
        let what = format!("MotherDuck answered that they are {found}, and {ducklings} was asked for");
        Err(asked.failed(Reason::BadAnswer, &what))
    }

    /// The accounts with Ducklings that run or cool down (not paged, observed).
    ///
    /// # Errors
    /// Why they are not known.
    pub async fn active_accounts(&self) -> Result<Vec<Running>, Failed> {
        let everybody = Account::new("");
        let asked = self.asked(Operation::ActiveAccounts, &everybody);
        let url = self.root_url("/v1/active_accounts");
        let list: ActiveAccounts = self.converse(Request { asked, method: Method::GET, url, body: None }).await?;
        let shown = |text: &str| crate::secret::presentable(text, 32, &[]);
        let running = |Object(account): Object<ActiveAccount>| Running {
            username: Account::new(&account.username),
            ducklings: account.ducklings.iter().map(|Object(one)| format!("{} {}", shown(&one.id), shown(&one.status))).collect(),
        };
        Ok(list.accounts.into_iter().map(running).collect())
    }

    /// Asks for what is harmless to ask for again, and reads a success.
    async fn converse<T: serde::de::DeserializeOwned>(&self, request: Request<'_>) -> Result<T, Failed> {
        let (answer, bearer) = self.ask(&request).await.map_err(|unanswered| unanswered.failed)?;
        if !(200..300).contains(&answer.status) {
            return Err(answer::refusal(request.asked, &answer, &bearer));
        }
        answer::parse(request.asked, &answer)
    }
}

fn lost(unanswered: Unanswered) -> AccountOutcome {
    match unanswered {
        Unanswered { sent: false, failed } => AccountOutcome::Refused(failed),
        Unanswered { sent: true, failed } => AccountOutcome::Unknown(failed),
    }
}

/// A definite refusal is one that the API gives before it acts, as with the creation of a token.
fn refused(answer: &Answer, failed: Failed) -> AccountOutcome {
    match answer.status {
        408 => AccountOutcome::Unknown(failed),
        307 | 308 | 400..=499 => AccountOutcome::Refused(failed),
        _ => AccountOutcome::Unknown(failed),
    }
}

/// A creation answers with the name (documented). Another one than was asked for, or none, proves nothing.
fn named(asked: Asked<'_>, answer: &Answer, account: &Account) -> AccountOutcome {
    match answer::parse::<Created>(asked, answer) {
        Ok(created) if Account::new(&created.username) == *account => AccountOutcome::Done,
        Ok(_) => AccountOutcome::Unknown(asked.failed(Reason::BadAnswer, "MotherDuck answered with another name")),
        Err(failed) => AccountOutcome::Unknown(failed),
    }
}

#[derive(Deserialize)]
struct Created {
    username: String,
}

#[derive(Deserialize)]
struct ActiveAccounts {
    accounts: Vec<Object<ActiveAccount>>,
}

#[derive(Deserialize)]
struct ActiveAccount {
    username: String,
    #[serde(default)]
    ducklings: Vec<Object<RunningDuckling>>,
}

#[derive(Deserialize)]
struct RunningDuckling {
    id: String,
    status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ducklings(size: Size, cooldown: Option<u32>, flock_size: u32) -> Ducklings {
        Ducklings { read_write: ReadWrite { size, cooldown }, read_scaling: ReadScaling { size, flock_size, cooldown } }
    }

    #[test]
    fn a_name_that_somebody_refuses_is_not_sent() {
        let long = "a".repeat(256);
        for wrong in ["", "ab", "1abc", "_abc", "etl-orders", "etl orders", "étl", "etl/x", "abc\n", &long] {
            let told = new_account(wrong).unwrap_err();
            assert!(told.contains("begins with a letter"), "{told}");
        }
        for right in ["abc", "ETL_2", &long[1..]] {
            assert_eq!(new_account(right).unwrap().as_str(), right);
        }
        assert_eq!(new_account("Etl").unwrap(), new_account("etl").unwrap());
    }

    #[test]
    fn sizes_and_cooldowns_have_their_limits() {
        for right in
            [ducklings(Size::Pulse, None, 0), ducklings(Size::Giga, Some(60), 64), ducklings(Size::Jumbo, Some(86_400), 4)]
        {
            assert_eq!(right.check(), Ok(()));
        }
        let wrong = |wrong: Ducklings| wrong.check().unwrap_err();
        assert!(wrong(ducklings(Size::Pulse, Some(60), 4)).contains("pulse"));
        assert!(wrong(ducklings(Size::Mega, Some(59), 4)).contains("one minute"));
        assert!(wrong(ducklings(Size::Mega, Some(86_401), 4)).contains("one day"));
        assert!(wrong(ducklings(Size::Mega, None, 65)).contains("64"));
        assert_eq!("mega".parse::<Size>(), Ok(Size::Mega));
        assert!("large".parse::<Size>().unwrap_err().contains("pulse, standard"));
    }

    #[test]
    fn a_half_that_is_as_asked_or_not_asked_for_is_sent_as_it_was_found() {
        let found = ducklings(Size::Standard, Some(900), 4);
        let Ducklings { read_write, read_scaling } = ducklings(Size::Jumbo, None, 8);
        assert_eq!(Wanted::default().instead_of(&found), None);
        let nothing_new = Wanted { read_write: Some(ReadWrite { size: Size::Standard, cooldown: None }), read_scaling: None };
        assert_eq!(nothing_new.instead_of(&found), None);
        let scaled = Wanted { read_scaling: Some(read_scaling.clone()), ..nothing_new };
        let sent = Ducklings { read_scaling: read_scaling.clone(), ..found.clone() };
        assert_eq!(scaled.instead_of(&found), Some(sent.clone()));
        assert_eq!(scaled.instead_of(&sent), None);
        let both = Wanted { read_write: Some(read_write.clone()), read_scaling: Some(read_scaling.clone()) };
        assert_eq!(both.instead_of(&found), Some(Ducklings { read_write, read_scaling }));
    }

    #[test]
    fn a_cooldown_that_is_not_asked_for_may_be_any_and_nothing_else() {
        let found = ducklings(Size::Standard, Some(60), 4);
        assert!(found.hold(&ducklings(Size::Standard, None, 4)) && found.hold(&found));
        for other in [ducklings(Size::Jumbo, None, 4), ducklings(Size::Standard, Some(61), 4), ducklings(Size::Standard, None, 5)]
        {
            assert!(!found.hold(&other), "{other}");
        }
    }
}
