//! Rust source cut into tokens: just enough to see which paths it names, comments and literals left out.

/// An identifier, `::`, or a single character of punctuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The token as written.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: usize,
}

impl Token {
    /// Whether it is an identifier or a keyword.
    pub(crate) fn is_word(&self) -> bool {
        self.text.starts_with(is_word_start)
    }
}

/// The tokens of a source text.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut scanner = Scanner { rest: source, line: 1, found: Vec::new() };
    while !scanner.rest.is_empty() {
        scanner.step();
    }
    scanner.found
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    found: Vec<Token>,
}

impl Scanner<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        let first = rest.chars().next().unwrap_or_default();
        if rest.starts_with("//") {
            self.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            self.skip(block_comment(rest));
        } else if let Some(length) = raw_string(rest) {
            self.skip(length);
        } else if first == '"' || rest.starts_with("b\"") || rest.starts_with("c\"") {
            self.skip(rest.find('"').map_or(rest.len(), |open| open + quoted(&rest[open..], '"')));
        } else if first == '\'' {
            self.skip(character_or_lifetime(rest));
        } else if is_word_start(first) {
            self.keep(rest.find(|c: char| !is_word_start(c) && !c.is_ascii_digit()).unwrap_or(rest.len()));
        } else if first.is_ascii_digit() {
            self.skip(rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len()));
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            self.keep(if rest.starts_with("::") { 2 } else { first.len_utf8() });
        }
    }

    fn keep(&mut self, length: usize) {
        self.found.push(Token { text: self.rest[..length].to_owned(), line: self.line });
        self.rest = &self.rest[length..];
    }

    fn skip(&mut self, length: usize) {
        self.line += self.rest[..length].matches('\n').count();
        self.rest = &self.rest[length..];
    }
}

fn is_word_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

/// The length of a comment that may hold others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and their like, if it is one.
fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let text = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let opened = rest.len() - text.len();
    Some(text.find(&close).map_or(rest.len(), |end| opened + end + close.len()))
}

/// The length of a literal with escapes, its quotes included.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// `'a'` and `'\n'` whole; of a lifetime the name too: it is not a path.
fn character_or_lifetime(rest: &str) -> usize {
    let mut inside = rest[1..].chars();
    match (inside.next(), inside.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(rest, '\''),
        _ => rest[1..].find(|c: char| !is_word_start(c) && !c.is_ascii_digit()).map_or(rest.len(), |end| end + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let source = "a /* tokio:: /* log:: */ */ b // serde::\n \"aya::\\\" x\" r#\"tokio\"::\"# c '\\'' 'd' &'e f";
        assert_eq!(texts(source), ["a", "b", "c", "&", "f"]);
    }

    #[test]
    fn a_path_keeps_its_colons_and_its_line() {
        let found = tokens("\n\nstd::fmt");
        assert_eq!(
            found.iter().map(|token| (token.text.as_str(), token.line)).collect::<Vec<_>>(),
            [("std", 3), ("::", 3), ("fmt", 3)]
        );
    }
}
