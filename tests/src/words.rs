//! How figures are written for people: octets to the last digit, or shortened with a unit.

/// Octets with digits in groups: `12,345,678`.
pub(crate) fn exactly(octets: u64) -> String {
    let digits = octets.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Octets in MiB with two decimals, KiB with one below a MiB, plain below 10 KiB.
pub(crate) fn about(octets: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    if octets < 10 * KIB {
        return octets.to_string();
    }
    if octets < MIB {
        let tenths = octets * 10 / KIB;
        return format!("{}.{} KiB", tenths / 10, tenths % 10);
    }
    let hundredths = u128::from(octets) * 100 / u128::from(MIB);
    format!("{}.{:02} MiB", hundredths / 100, hundredths % 100)
}

/// Breaks `text` at blanks into lines of at most `width` characters; a longer word gets a line of its own.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_inclusive(' ') {
            let fits = line.chars().count() + word.trim_end().chars().count() <= width;
            if !fits && !line.trim().is_empty() {
                lines.push(line.trim_end().to_owned());
                line.clear();
            }
            line.push_str(word);
        }
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let texts = [0, 999, 1000, 1_234_567, 123_456_789].map(exactly);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567", "123,456,789"]);
    }

    #[test]
    fn units_are_cut_and_never_rounded_up() {
        let texts = [0, 10_239, 10_240, (1 << 20) - 1, 1 << 20, (5 << 20) / 2].map(about);
        assert_eq!(texts, ["0", "10239", "10.0 KiB", "1023.9 KiB", "1.00 MiB", "2.50 MiB"]);
    }

    #[test]
    fn lines_break_at_blanks_and_keep_their_indent() {
        assert_eq!(wrap("  one two three", 9), ["  one two", "three"]);
        assert_eq!(wrap("overlong a", 4), ["overlong", "a"]);
        assert_eq!(wrap("a\n\nb", 4), ["a", "", "b"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
