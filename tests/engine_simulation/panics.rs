//! Panics of the engine's tasks: the runtime keeps them to itself, so a hook notes them for the
//! history that runs on the thread.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Notes the panics of this thread from now on, instead of printing them.
pub fn watch() {
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if WATCHED.get() {
                let message = info.to_string();
                LAST.with_borrow_mut(|last| *last = last.take().or(Some(message)));
            } else {
                usual(info);
            }
        }));
    });
    WATCHED.set(true);
}

pub fn unwatch() {
    WATCHED.set(false);
}

/// The first panic since the last call.
pub fn take() -> Option<String> {
    LAST.with_borrow_mut(Option::take)
}
