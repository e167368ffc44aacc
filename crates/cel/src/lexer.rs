//! Characters to tokens. Positions are code points, because columns in messages are.

use crate::errors::Issues;

/// What a token is. Text that matters travels with it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    /// An identifier between back quotes.
    Quoted(String),
    Int(String),
    Uint(String),
    Double(String),
    /// A string with its quotes and prefixes.
    Str(String),
    /// The same for bytes, without the leading `b`.
    Bytes(String),
    /// An operator or punctuation.
    Op(&'static str),
    /// `in`, `true`, `false`, `null`.
    Keyword(&'static str),
    End,
}

/// A token and where it starts.
#[derive(Debug, Clone)]
pub(crate) struct Lexeme {
    pub(crate) token: Token,
    pub(crate) pos: usize,
    /// The token's own text, for messages.
    pub(crate) text: String,
}

/// Two characters first, so that the longest match wins.
const OPERATORS: [&str; 27] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!",
    "?", ":", "+", "*", "/", "%", "=", "&", "|",
];

/// Splits the whole source. Characters that begin no token are reported and skipped.
pub(crate) fn tokens(chars: &[char], issues: &mut Issues) -> Vec<Lexeme> {
    let mut lexer = Lexer { chars, at: 0 };
    let mut found = Vec::new();
    while let Some(&c) = lexer.chars.get(lexer.at) {
        let start = lexer.at;
        if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
            lexer.at += 1;
            continue;
        }
        if c == '/' && lexer.peek(1) == Some('/') {
            while lexer.at < chars.len() && chars[lexer.at] != '\n' {
                lexer.at += 1;
            }
            continue;
        }
        match lexer.next(c) {
            Some(token) => {
                let text = chars[start..lexer.at].iter().collect();
                found.push(Lexeme {
                    token,
                    pos: start,
                    text,
                });
            }
            None => {
                let end = lexer.at.max(start + 1).min(chars.len());
                let text: String = chars[start..end].iter().collect();
                issues.report(
                    start,
                    format!("Syntax error: token recognition error at: '{text}'"),
                );
                lexer.at = end;
            }
        }
    }
    found.push(Lexeme {
        token: Token::End,
        pos: chars.len(),
        text: "<EOF>".into(),
    });
    found
}

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn next(&mut self, c: char) -> Option<Token> {
        if let Some(token) = self.string(c) {
            return token;
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|d| d.is_ascii_digit())) {
            return Some(self.number());
        }
        if c == '_' || c.is_ascii_alphabetic() {
            let start = self.at;
            while self
                .peek(0)
                .is_some_and(|c| c == '_' || c.is_ascii_alphanumeric())
            {
                self.at += 1;
            }
            let word: String = self.chars[start..self.at].iter().collect();
            return Some(match word.as_str() {
                "in" => Token::Keyword("in"),
                "true" => Token::Keyword("true"),
                "false" => Token::Keyword("false"),
                "null" => Token::Keyword("null"),
                _ => Token::Ident(word),
            });
        }
        if c == '`' {
            let close = self.chars[self.at + 1..].iter().position(|c| *c == '`')?;
            let text: String = self.chars[self.at + 1..self.at + 1 + close]
                .iter()
                .collect();
            let valid = !text.is_empty()
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c));
            if !valid {
                return None;
            }
            self.at += close + 2;
            return Some(Token::Quoted(text));
        }
        for op in OPERATORS {
            if op.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)) {
                if matches!(op, "=" | "&" | "|") {
                    return None;
                }
                self.at += op.len();
                return Some(Token::Op(op));
            }
        }
        None
    }

    /// A string or bytes literal: `Some(None)` when one begins here and does not end.
    fn string(&mut self, c: char) -> Option<Option<Token>> {
        let mut ahead = 0;
        let (mut raw, mut bytes) = (false, false);
        if matches!(c, 'b' | 'B') {
            bytes = true;
            ahead = 1;
        }
        if matches!(self.peek(ahead), Some('r' | 'R')) {
            raw = true;
            ahead += 1;
        }
        let quote = self.peek(ahead).filter(|q| matches!(q, '"' | '\''))?;
        let triple = self.peek(ahead + 1) == Some(quote) && self.peek(ahead + 2) == Some(quote);
        let start = self.at + usize::from(bytes);
        let mut at = self.at + ahead + if triple { 3 } else { 1 };
        loop {
            let Some(&c) = self.chars.get(at) else {
                self.at = at;
                return Some(None);
            };
            if c == '\\' && !raw {
                at += 2;
                continue;
            }
            if !triple && (c == '\n' || c == '\r') {
                self.at = at;
                return Some(None);
            }
            if c == quote {
                if !triple {
                    at += 1;
                    break;
                }
                if self.chars.get(at + 1) == Some(&quote) && self.chars.get(at + 2) == Some(&quote)
                {
                    at += 3;
                    break;
                }
            }
            at += 1;
        }
        self.at = at;
        let text: String = self.chars[start..at.min(self.chars.len())].iter().collect();
        Some(Some(if bytes {
            Token::Bytes(text)
        } else {
            Token::Str(text)
        }))
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        let text = |lexer: &Self, end: usize| lexer.chars[start..end].iter().collect::<String>();
        if self.peek(0) == Some('0') && self.peek(1) == Some('x') {
            let digits = self.chars[self.at + 2..]
                .iter()
                .take_while(|c| c.is_ascii_hexdigit())
                .count();
            if digits > 0 {
                self.at += 2 + digits;
                return self.suffixed(text(self, self.at));
            }
        }
        let digits = |lexer: &mut Self| {
            while lexer.peek(0).is_some_and(|c| c.is_ascii_digit()) {
                lexer.at += 1;
            }
        };
        digits(self);
        let mut double = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            double = true;
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(0), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                double = true;
                self.at += 1 + sign;
                digits(self);
            }
        }
        if double {
            return Token::Double(text(self, self.at));
        }
        self.suffixed(text(self, self.at))
    }

    fn suffixed(&mut self, text: String) -> Token {
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return Token::Uint(text);
        }
        Token::Int(text)
    }
}
