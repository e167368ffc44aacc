//! Words that no name may be.

/// Words of the language, and words that its specification keeps for other languages.
const WORDS: [&str; 4] = ["true", "false", "null", "in"];
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Is the word kept, though it means nothing in CEL itself?
pub(crate) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// Can the word not be used as a name: because CEL means something by it, or because it is kept?
/// Source: "Syntax" in the language definition of CEL.
#[must_use]
pub fn is_no_name(word: &str) -> bool {
    WORDS.contains(&word) || is_reserved(word)
}
