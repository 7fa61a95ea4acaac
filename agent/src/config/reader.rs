//! Reads one TOML table key by key, and remembers file line and key path of everything that is wrong with it.

use std::cell::RefCell;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    /// Line in the file, from 1.
    pub(super) line: usize,
    /// Key path and what is wrong.
    pub(super) message: String,
}

/// The file's text and the problems found so far.
pub(super) struct Source<'t> {
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Source<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::default() }
    }

    /// Remembers a problem at an offset into the text.
    pub(super) fn problem(&self, offset: usize, message: String) {
        let before = self.text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|octet| **octet == b'\n').count();
        self.problems.borrow_mut().push(Problem { line, message });
    }

    /// Everything that was wrong, by line.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems
    }
}

/// One table of the file.
pub(super) struct Section<'s> {
    source: &'s Source<'s>,
    table: Option<&'s DeTable<'s>>,
    path: String,
    offset: usize,
    known: RefCell<Vec<&'static str>>,
}

impl<'s> Section<'s> {
    /// The whole file.
    pub(super) fn root(source: &'s Source<'s>, table: &'s DeTable<'s>) -> Self {
        Self { source, table: Some(table), path: String::new(), offset: 0, known: RefCell::default() }
    }

    /// Where a key's value begins in the text; the table's own place when the key is not there.
    pub(super) fn offset_of(&self, key: &str) -> usize {
        self.table.and_then(|table| table.get(key)).map_or(self.offset, |value| value.span().start)
    }

    /// Remembers a problem with one key of this table.
    pub(super) fn problem(&self, key: &str, message: &str) {
        self.source.problem(self.offset_of(key), format!("{}: {message}", self.path_of(key)));
    }

    /// True when the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The key's value, if it is there and right.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'s>) -> Result<T, String>,
    ) -> Option<T> {
        match read(self.value(key)?.get_ref()) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(key, &message);
                None
            }
        }
    }

    /// The key's value; a problem when it is missing.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'s>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.problem(key, "is missing, and is required");
        }
        self.optional(key, read)
    }

    /// A table within this one; an empty one in its place when it is missing.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let mut section = self.empty(self.path_of(key));
        if let Some(value) = self.value(key) {
            match value.get_ref() {
                DeValue::Table(table) => section.table = Some(table),
                other => self.problem(key, &format!("is {}, not a table: write [{key}]", kind(other))),
            }
            section.offset = value.span().start;
        }
        section
    }

    /// The tables of an array of tables; none when it is missing.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.problem(key, &format!("is {}, not a list of tables: write [[{key}]]", kind(value.get_ref())));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let mut section = self.empty(format!("{}[{index}]", self.path_of(key)));
            section.offset = item.span().start;
            match item.get_ref() {
                DeValue::Table(table) => section.table = Some(table),
                other => self.problem(key, &format!("[{index}] is {}, not a table", kind(other))),
            }
            sections.push(section);
        }
        sections
    }

    /// Every key that nobody asked for is a problem.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let hint = nearest(name, &known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            self.source.problem(key.span().start, format!("{}: is not a known key{hint}", self.path_of(name)));
        }
    }

    fn empty(&self, path: String) -> Self {
        Self { source: self.source, table: None, path, offset: self.offset, known: RefCell::default() }
    }

    fn value(&self, key: &'static str) -> Option<&'s Spanned<DeValue<'s>>> {
        self.known.borrow_mut().push(key);
        self.table?.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// What a value is, for a message.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known key that looks most like what was written, when one does.
fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|key| (distance(written, key), *key)).min()?;
    (near.0 <= 1 + near.1.len() / 4).then_some(near.1)
}

/// Letters to insert, delete or replace between two words (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_offered_only_when_it_is_near() {
        let known = ["report_interval", "url", "chunk"];
        assert_eq!(nearest("report_intervall", &known), Some("report_interval"));
        assert_eq!(nearest("chunks", &known), Some("chunk"));
        assert_eq!(nearest("colour", &known), None);
    }
}
