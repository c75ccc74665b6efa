//! Which credentials are asked for: search, filter, order and page, the same for the page and the JSON.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::Roster;
use crate::rotation::CredentialName;
use crate::snapshot::{At, Attention, Board, CredentialState, Label, Summary, label};

/// How many credentials a page has, unless it is asked for otherwise.
const PER_PAGE: usize = 50;
/// The most that one answer lists.
const PER_PAGE_MAX: usize = 500;
/// How many are looked at under one hold of the board's lock.
const PORTION: usize = 2_000;
/// Longer than any name; a label may be longer, and is found by a part.
const SEARCH_MAX: usize = 64;

label!(
    /// In which order credentials are listed.
    Order {
        /// What needs a person first, the most pressing on top; among equals what stops working first.
        Need = "need",
        Name = "name",
        Expiry = "expiry",
        Next = "next",
    }
);

/// The whole number of a parameter, from 1 to `most`; `default` where it is empty.
///
/// # Errors
/// What would be right.
pub fn within<T>(name: &str, text: &str, default: T, most: T) -> Result<T, String>
where
    T: std::str::FromStr + std::fmt::Display + PartialOrd + From<u8>,
{
    match text {
        "" => Ok(default),
        text => text
            .parse()
            .ok()
            .filter(|number| *number >= T::from(1) && *number <= most)
            .ok_or_else(|| format!("`{name}` is no whole number from 1 to {most}")),
    }
}

/// What is asked for, as it stands in the address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    pub q: String,
    pub show: String,
    pub sort: String,
    pub page: String,
    pub per_page: String,
}

/// What is shown of a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    All,
    /// What needs a person.
    Attention,
    State(CredentialState),
}

impl Show {
    /// Everything that can be shown, in the order of the choice on the page.
    pub fn every() -> impl Iterator<Item = Self> {
        [Self::All, Self::Attention].into_iter().chain(CredentialState::ALL.iter().map(|state| Self::State(*state)))
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Attention => "attention",
            Self::State(state) => state.as_str(),
        }
    }

    fn takes(self, summary: &Summary, attention: Option<Attention>) -> bool {
        match self {
            Self::All => true,
            Self::Attention => attention.is_some(),
            Self::State(state) => summary.state == state,
        }
    }
}

/// What is asked for, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// A part of the name, of the account or of a label, in lower case.
    pub search: String,
    pub show: Show,
    pub order: Order,
    /// From 1 on.
    pub page: usize,
    pub per_page: usize,
}

impl Asked {
    /// The query; an empty value is the same as none, as a form without scripts sends it.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn check(&self) -> Result<Query, String> {
        let words = |each: &mut dyn Iterator<Item = &'static str>| each.collect::<Vec<_>>().join(", ");
        let show = match self.show.as_str() {
            "" => Show::All,
            text => Show::every()
                .find(|show| show.as_str() == text)
                .ok_or_else(|| format!("`show` is none of {}", words(&mut Show::every().map(Show::as_str))))?,
        };
        let order = match self.sort.as_str() {
            "" => Order::Need,
            text => Order::ALL
                .iter()
                .copied()
                .find(|order| order.as_str() == text)
                .ok_or_else(|| format!("`sort` is none of {}", words(&mut Order::ALL.iter().map(|order| order.as_str()))))?,
        };
        let search: String = self.q.trim().chars().take(SEARCH_MAX).flat_map(char::to_lowercase).collect();
        let page = within("page", self.page.trim(), 1, usize::from(u16::MAX))?;
        let per_page = within("per_page", self.per_page.trim(), PER_PAGE, PER_PAGE_MAX)?;
        Ok(Query { search, show, order, page, per_page })
    }
}

/// One page of the credentials that fit.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listing {
    /// How many fit in all.
    pub matching: usize,
    /// Which page this is, from 1 on; the last one, where a later one was asked for.
    pub page: usize,
    pub pages: usize,
    pub credentials: Vec<Listed>,
}

/// A credential's line.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Listed {
    #[schemars(with = "String")]
    pub name: CredentialName,
    pub organization: Option<String>,
    /// Why a person should look at it, the most pressing first.
    pub attention: Vec<Attention>,
    #[serde(flatten)]
    pub summary: Summary,
}

impl Listed {
    pub fn new(board: &Board, name: CredentialName, summary: Summary, now: Timestamp) -> Self {
        let organization = board.organization_name(summary.organization).map(|name| name.as_ref().to_owned());
        Self { name, organization, attention: summary.attention(now).collect(), summary }
    }
}

/// What credentials are put in order by; an unknown moment comes last.
type Rank = (Option<usize>, i64);

/// The page that is asked for: one walk over the board, a little at a time.
pub fn select(board: &Board, roster: &dyn Roster, query: &Query, now: Timestamp) -> Listing {
    let mut found: Vec<(Rank, CredentialName, Summary)> = Vec::new();
    let mut after = None;
    loop {
        let portion = board.portion(after.as_ref(), PORTION);
        let Some((last, _)) = portion.last() else { break };
        after = Some(last.clone());
        found.extend(portion.into_iter().filter_map(|(name, summary)| {
            let attention = summary.attention(now).next();
            let is_found = || name.as_str().contains(&query.search) || roster.is_told_of(&name, &query.search);
            let fits = query.show.takes(&summary, attention) && is_found();
            fits.then(|| (rank(query.order, &summary, attention), name, summary))
        }));
    }
    // Stable, so that names stay in their order among equals.
    found.sort_by_key(|(rank, _, _)| *rank);
    let pages = found.len().div_ceil(query.per_page).max(1);
    let page = query.page.min(pages);
    let shown = found.iter().skip((page - 1) * query.per_page).take(query.per_page);
    let credentials = shown.map(|(_, name, summary)| Listed::new(board, name.clone(), *summary, now)).collect();
    Listing { matching: found.len(), page, pages, credentials }
}

fn rank(order: Order, summary: &Summary, attention: Option<Attention>) -> Rank {
    let moment = |at: At| at.millis().unwrap_or(i64::MAX);
    match order {
        Order::Need => {
            let calm = Attention::ALL.len();
            let pressing = attention.and_then(|attention| Attention::ALL.iter().position(|known| *known == attention));
            (Some(pressing.unwrap_or(calm)), if pressing.is_some() { moment(summary.served_until) } else { 0 })
        }
        Order::Name => (None, 0),
        Order::Expiry => (None, moment(summary.expires_at)),
        Order::Next => (None, moment(summary.due_at)),
    }
}
