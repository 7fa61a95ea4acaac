//! The wire against its golden files and schema, odd answers, and attempts against a server of a few lines.

pub(crate) mod attempts;
mod golden;
mod odd;

use std::path::PathBuf;

use crate::quota::Operation;
use crate::reporter::Expected;
use crate::units::{InvocationSequenceNumber, Octets, RatingGroup};

/// A file under docs/wire, as text.
pub(crate) fn wire_file(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/wire").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails unless the octets pass a closed schema of the profile.
pub(crate) fn assert_passes(definition: &str, octets: &[u8]) {
    let mut schema: serde_json::Value = serde_json::from_str(&wire_file("profile.schema.json")).unwrap();
    schema["$ref"] = format!("#/$defs/{definition}").into();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let value = serde_json::from_slice(octets).unwrap();
    let problems: Vec<_> = validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(problems.is_empty(), "{definition}: {problems:?}");
}

/// JSON without the blanks between its tokens, its members in their own order.
pub(crate) fn minified(json: &str) -> String {
    let (mut out, mut quoted, mut escaped) = (String::new(), false, false);
    for c in json.chars() {
        if quoted || !c.is_whitespace() {
            out.push(c);
        }
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
    }
    out
}

fn expected(operation: Operation, number: u32) -> Expected {
    Expected {
        operation,
        number: InvocationSequenceNumber::new(number),
        rating_group: RatingGroup::new(10),
        requested: Some(Octets::new(1 << 20)),
    }
}
