//! The one error type: what it concerns (file, layer, field, node), what is wrong, and whose fault it is.

use std::fmt;

pub type Result<T> = std::result::Result<T, Error>;

/// Decides the exit code: `Input` 2 (wrong use or unreadable input), the others 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user's input is wrong: a file, a flag, a model, a chip description.
    Input,
    /// The work itself failed: a device was lost, the disk is full, a solver broke down.
    Work,
    /// The user asked to stop (Ctrl-C).
    Interrupted,
}

/// Shown to the user as one line, `subject: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    /// The file, layer, field or node concerned; may be empty.
    pub subject: String,
    pub message: String,
}

impl Error {
    pub fn input(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: Kind::Input, subject: subject.into(), message: message.into() }
    }

    pub fn work(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind: Kind::Work, subject: subject.into(), message: message.into() }
    }

    pub fn interrupted() -> Self {
        Self { kind: Kind::Interrupted, subject: String::new(), message: "interrupted; nothing was written".into() }
    }

    /// Puts `outer` (a file's name, say) before the subject.
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.subject = if self.subject.is_empty() { outer.to_string() } else { format!("{outer}: {}", self.subject) };
        self
    }

    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Input => 2,
            Kind::Work | Kind::Interrupted => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.subject, self.message)
        }
    }
}

impl std::error::Error for Error {}
