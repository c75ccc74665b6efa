//! What can go wrong, by kind: what the table of pairs is made of.

/// A kind of fault, or of change from outside. The name is what tables and traces print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The process dies with a decision that it did not save.
    CrashBeforeSave,
    /// It dies after an effect whose outcome was not saved.
    CrashBeforeTold,
    /// It dies after the save, before the call is sent, or while it waits.
    CrashAfterSave,
    /// It dies with a call under way that may land in the next process's time.
    CrashInFlight,
    /// As before, and the next process comes a quarter of an hour later.
    CrashThenAway,
    /// It stays away until every token has expired.
    AwayTillExpired,
    /// The list lacks a page, so that it is no complete list.
    ListLacksPage,
    /// The list lacks the newest token, which is younger than a minute.
    ListLags,
    ReadFails,
    /// The place shows what it held before a write that is younger than a minute.
    ReadLags,
    IssueRefused,
    IssueLostNotDone,
    IssueLostDone,
    IssueLate,
    WriteRefused,
    WriteLostNotDone,
    WriteLostDone,
    WriteLate,
    RevokeRefused,
    RevokeLostNotDone,
    RevokeLostDone,
    RevokeLate,
    RolledBack,
    ChangedByHand,
    Wiped,
    /// A person revokes the token that the deliveries serve, or an older one.
    RevokedByHand,
    JournalLost,
    JournalRestored,
    DeliveryRemoved,
    /// One delivery is removed and another place added.
    DeliveryMoved,
    /// A delivery is added that never was there, or comes back that was removed before.
    DeliveryAdded,
}

impl Kind {
    pub const ALL: [Self; 31] = [
        Self::CrashBeforeSave,
        Self::CrashBeforeTold,
        Self::CrashAfterSave,
        Self::CrashInFlight,
        Self::CrashThenAway,
        Self::AwayTillExpired,
        Self::ListLacksPage,
        Self::ListLags,
        Self::ReadFails,
        Self::ReadLags,
        Self::IssueRefused,
        Self::IssueLostNotDone,
        Self::IssueLostDone,
        Self::IssueLate,
        Self::WriteRefused,
        Self::WriteLostNotDone,
        Self::WriteLostDone,
        Self::WriteLate,
        Self::RevokeRefused,
        Self::RevokeLostNotDone,
        Self::RevokeLostDone,
        Self::RevokeLate,
        Self::RolledBack,
        Self::ChangedByHand,
        Self::Wiped,
        Self::RevokedByHand,
        Self::JournalLost,
        Self::JournalRestored,
        Self::DeliveryRemoved,
        Self::DeliveryMoved,
        Self::DeliveryAdded,
    ];

    pub fn is_of_a_revocation(self) -> bool {
        matches!(self, Self::RevokeRefused | Self::RevokeLostNotDone | Self::RevokeLostDone | Self::RevokeLate)
    }

    pub fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// How often each kind came after each other one, on one path.
#[derive(Debug, Clone)]
pub struct Pairs {
    counts: Vec<u64>,
}

impl Pairs {
    pub fn new() -> Self {
        Self { counts: vec![0; Kind::ALL.len() * Kind::ALL.len()] }
    }

    pub fn meet(&mut self, first: Kind, second: Kind) {
        self.counts[first as usize * Kind::ALL.len() + second as usize] += 1;
    }

    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(all, more)| *all += more);
    }

    pub fn count(&self, first: Kind, second: Kind) -> u64 {
        self.counts[first as usize * Kind::ALL.len() + second as usize]
    }

    /// Pairs that could occur and were not met.
    pub fn missing(&self) -> Vec<(Kind, Kind)> {
        let all = Kind::ALL.iter().flat_map(|first| Kind::ALL.iter().map(|second| (*first, *second)));
        all.filter(|(first, second)| self.count(*first, *second) == 0 && !is_impossible(*first, *second)).collect()
    }

    /// One row for each first fault, one column for each second one; `.` where the pair can't occur.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (index, kind) in Kind::ALL.iter().enumerate() {
            text += &format!("{index:>2} = {kind:?}{}", if index % 4 == 3 { "\n" } else { ", " });
        }
        text += &format!("\n{:<18}", "first \\ second");
        (0..Kind::ALL.len()).for_each(|index| text += &format!("{index:>6}"));
        for (row, first) in Kind::ALL.iter().enumerate() {
            text += &format!("\n{row:>2} {:<15.15}", format!("{first:?}"));
            for second in Kind::ALL {
                let count = self.count(*first, second);
                text += &match count {
                    0 if is_impossible(*first, second) => format!("{:>6}", "."),
                    0 => format!("{:>6}", "NONE"),
                    1_000_000.. => format!("{:>5}M", count / 1_000_000),
                    10_000.. => format!("{:>5}k", count / 1000),
                    _ => format!("{count:>6}"),
                };
            }
        }
        text
    }
}

/// What the core or the model rules out, with the reason.
fn is_impossible(first: Kind, second: Kind) -> bool {
    use Kind as K;
    let gone = [K::DeliveryRemoved, K::DeliveryMoved];
    // Beside the two there is room for one more, which may go again.
    let added = first == K::DeliveryAdded && [K::DeliveryAdded, K::DeliveryMoved].contains(&second);
    let goes_twice = gone.contains(&first) && gone.contains(&second);
    // The core lists within a minute of an issue only where a token is lost or a process begins.
    let lists_at_once = [
        K::CrashBeforeSave,
        K::CrashBeforeTold,
        K::CrashAfterSave,
        K::CrashInFlight,
        K::CrashThenAway,
        K::AwayTillExpired,
        K::IssueLostNotDone,
        K::IssueLostDone,
        K::IssueLate,
        K::JournalLost,
        K::JournalRestored,
    ];
    let unlisted = first == K::ListLags || (second == K::ListLags && !lists_at_once.contains(&first));
    added || goes_twice || unlisted
}
