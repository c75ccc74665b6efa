//! What one thread logs, kept: for tests that look for a secret in it.

use std::io::{Result, Write};
use std::sync::{Arc, Mutex};

use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;

/// Everything that is logged in the thread that made it, at every level and of every target, until it is dropped.
pub struct Log {
    kept: Kept,
    _guard: DefaultGuard,
    _second: Dispatch,
}

impl Log {
    pub fn of_this_thread() -> Self {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        // While a process has one subscriber alone, a line that a thread without it comes to first is switched off for all.
        let second = Dispatch::new(tracing_subscriber::registry());
        Self { kept, _guard: tracing::subscriber::set_default(subscriber), _second: second }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.0.lock().unwrap()).into_owned()
    }
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
