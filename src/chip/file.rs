//! A chip file as text: where each of its tables comes from, what it says is unknown, and where a mistake stands.
//!
//! Beside its own fields every table may hold `source` (where its figures come from), `sources` (the same for single
//! fields) and `unverified` (fields whose figure nobody has read in its source). Any field may say "unknown": it is then
//! as good as left out, but listed.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Result};

/// What a table says about where its figures come from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Origin {
    /// The table's name; empty for the fields above the first table.
    pub table: String,
    /// Its own fields, without the ones of this struct.
    pub fields: Vec<String>,
    pub source: Option<String>,
    /// By field; wins over `source`.
    pub sources: BTreeMap<String, String>,
    pub unverified: Vec<String>,
    pub unknown: Vec<String>,
}

/// A parsed file that still knows its lines.
pub struct ChipFile<'a> {
    name: &'a str,
    text: &'a str,
    root: Spanned<DeTable<'a>>,
    pub origins: Vec<Origin>,
}

impl<'a> ChipFile<'a> {
    /// # Errors
    /// Input: not TOML, or sources that do not belong to a field; names file, line and field.
    pub fn parse(name: &'a str, text: &'a str) -> Result<Self> {
        let mut file = Self {
            name,
            text,
            root: DeTable::parse(text).map_err(|e| refuse(name, text, None, &e))?,
            origins: Vec::new(),
        };
        let mut root = std::mem::take(file.root.get_mut());
        let mut origins = vec![file.origin("", &mut root)?];
        for (key, value) in root.iter_mut() {
            if let DeValue::Table(table) = value.get_mut() {
                origins.push(file.origin(key.get_ref(), table)?);
            }
        }
        *file.root.get_mut() = root;
        file.origins = origins;
        Ok(file)
    }

    /// The description as `T`.
    ///
    /// # Errors
    /// Input: an unknown, missing or ill-typed field, with file, line and field.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let deserializer = toml::Deserializer::from(self.root.clone());
        T::deserialize(deserializer).map_err(|e| refuse(self.name, self.text, Some(self.root.get_ref()), &e))
    }

    /// An error about `field` (`table.field`, or a table), with the line that holds it if one does.
    pub fn wrong(&self, field: &str, message: impl std::fmt::Display) -> Error {
        let mut table = self.root.get_ref();
        let mut at = None;
        for part in field.split('.') {
            let Some((key, value)) = table.get_key_value(part) else { break };
            at = Some(key.span());
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        located(self.name, self.text, at, field, &message.to_string())
    }

    /// Takes out of a table what it says about its sources, and its unknown fields.
    fn origin(&self, name: &str, table: &mut DeTable<'a>) -> Result<Origin> {
        let mut origin = Origin { table: name.to_string(), ..Origin::default() };
        if let Some(source) = table.remove("source") {
            origin.source = Some(self.take(name, "source", source)?);
        }
        if let Some(sources) = table.remove("sources") {
            origin.sources = self.take(name, "sources", sources)?;
        }
        let unverified_at = table.get("unverified").map(Spanned::span);
        if let Some(unverified) = table.remove("unverified") {
            origin.unverified = self.take(name, "unverified", unverified)?;
        }
        origin.fields = table.keys().map(|key| key.get_ref().to_string()).collect();
        let says =
            |table: &DeTable<'_>, key: &str| table.get(key).is_some_and(|v| v.get_ref().as_str() == Some("unknown"));
        origin.unknown = origin.fields.iter().filter(|key| says(table, key)).cloned().collect();
        for key in &origin.unknown {
            table.remove(key.as_str());
        }
        let stray = origin.sources.keys().chain(&origin.unverified).find(|key| !origin.fields.contains(key));
        if let Some(stray) = stray {
            let what = format!("says where `{stray}` comes from, and has no such field");
            let title = if name.is_empty() { "the file" } else { name };
            return Err(located(self.name, self.text, unverified_at, title, &what));
        }
        Ok(origin)
    }

    fn take<T: DeserializeOwned>(&self, table: &str, key: &str, value: Spanned<DeValue<'a>>) -> Result<T> {
        let span = value.span();
        T::deserialize(toml::de::ValueDeserializer::from(value))
            .map_err(|e| located(self.name, self.text, Some(span), &joined(table, key), e.message()))
    }
}

fn joined(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_string() } else { format!("{table}.{key}") }
}

fn refuse(name: &str, text: &str, root: Option<&DeTable<'_>>, e: &toml::de::Error) -> Error {
    let field = e.span().zip(root).map_or_else(String::new, |(span, root)| field_at(root, &span));
    let message: Vec<&str> = e.message().lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let mut message = message.join(" ");
    // A syntax error has no field: show what it stumbled over.
    let there = e.span().and_then(|span| text.get(span)).filter(|t| !t.is_empty() && !t.contains('\n'));
    if let (true, Some(there)) = (root.is_none(), there) {
        message = format!("{message} (`{there}`)");
    }
    located(name, text, e.span(), &field, &message)
}

/// The innermost field whose key or value holds the span.
fn field_at(table: &DeTable<'_>, span: &Range<usize>) -> String {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table.iter() {
        if let DeValue::Table(inner) = value.get_ref() {
            let below = field_at(inner, span);
            if !below.is_empty() {
                return joined(key.get_ref(), &below);
            }
        }
        if holds(key.span()) || holds(value.span()) {
            return key.get_ref().to_string();
        }
    }
    String::new()
}

/// `file:line: field: message`
fn located(name: &str, text: &str, at: Option<Range<usize>>, field: &str, message: &str) -> Error {
    let line = at.map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or_else(|| name.to_string(), |line| format!("{name}:{line}"));
    Error::input(if field.is_empty() { place } else { format!("{place}: {field}") }, message)
}
