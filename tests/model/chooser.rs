//! Who decides what the environment does: a script, so that every choice can be made in turn, or chance.

use super::outside::Fault;
use crate::simulator::rng::Rng;

/// One alternative of the environment at one point of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alternative {
    Nothing,
    /// The call at this index of the flights lands now.
    Lands(usize),
    /// It costs one of the faults that are left.
    Fault(Fault),
    /// The process dies with its call under way and another one takes over: no fault of its own.
    TakeOver,
    /// A second installation of the same name begins: no fault either.
    Newcomer,
}

#[derive(Debug)]
pub enum Chooser<'s> {
    /// The choices by point of the turn, in order; nothing happens at any other point.
    Script(Script<'s>),
    /// A fault at so many of a thousand points; a call that may land does so at every fourth.
    Chance { rng: &'s mut Rng, permille: u64 },
    /// Nothing goes wrong any more.
    Calm,
}

#[derive(Debug)]
pub struct Script<'s> {
    picks: &'s [Pick],
    point: u16,
    /// How many alternatives each point beyond the script's last choice had.
    pub open: Vec<Pick>,
}

/// At this point of the turn, this alternative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    pub point: u16,
    pub alternative: u16,
}

impl<'s> Chooser<'s> {
    pub fn script(picks: &'s [Pick]) -> Self {
        Self::Script(Script { picks, point: 0, open: Vec::new() })
    }

    pub fn choose(&mut self, alternatives: &[Alternative]) -> Alternative {
        let picked = match self {
            Self::Script(script) => script.choose(alternatives.len()),
            Self::Chance { rng, permille } => {
                let landing = alternatives.iter().position(|one| matches!(one, Alternative::Lands(_)));
                match landing {
                    Some(index) if rng.permille(250) => index,
                    _ if alternatives.len() > 1 && rng.permille(*permille) => {
                        1 + rng.below(alternatives.len() as u64 - 1) as usize
                    }
                    _ => 0,
                }
            }
            Self::Calm => 0,
        };
        alternatives[picked]
    }
}

impl Script<'_> {
    fn choose(&mut self, width: usize) -> usize {
        let point = self.point;
        self.point += 1;
        let scripted = self.picks.iter().find(|pick| pick.point == point);
        let last = self.picks.last().is_none_or(|last| last.point < point);
        if last && width > 1 {
            self.open.push(Pick { point, alternative: width as u16 });
        }
        scripted.map_or(0, |pick| usize::from(pick.alternative))
    }
}
