//! Progress bars on standard error, and Ctrl-C.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::convert::Watch;
use crate::error::{Error, Result};

static STOP: AtomicBool = AtomicBool::new(false);

/// A bar per stage; nothing where standard error is no terminal.
pub struct Progress {
    bar: Mutex<ProgressBar>,
}

impl Progress {
    /// Begins to listen to Ctrl-C: the first one asks the work to stop, a second one ends the process.
    ///
    /// # Errors
    /// The system refuses a signal handler.
    pub fn new() -> Result<Self> {
        ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        })
        .map_err(|e| Error::work("Ctrl-C", e.to_string()))?;
        Ok(Self { bar: Mutex::new(ProgressBar::hidden()) })
    }

    /// Clears the bar.
    pub fn done(&self) {
        if let Ok(bar) = self.bar.lock() {
            bar.finish_and_clear();
        }
    }
}

impl Watch for Progress {
    fn stage(&self, name: &str, ticks: u64) {
        let bar = ProgressBar::with_draw_target(Some(ticks), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg:40!} {bar:30} {pos}/{len} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(name.to_string());
        if let Ok(mut current) = self.bar.lock() {
            current.finish_and_clear();
            *current = bar;
        }
    }

    fn tick(&self) {
        if let Ok(bar) = self.bar.lock() {
            bar.inc(1);
        }
    }

    fn cancelled(&self) -> bool {
        STOP.load(Ordering::Relaxed)
    }
}
