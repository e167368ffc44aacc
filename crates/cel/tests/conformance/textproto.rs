//! Just enough of protobuf's text format to read the vectors.

/// A message: its fields in order, repeated ones repeated.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) fields: Vec<(String, Field)>,
}

/// A field's value.
#[derive(Debug)]
pub(crate) enum Field {
    Message(Message),
    Octets(Vec<u8>),
    Word(String),
}

impl Field {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Message(_) => String::new(),
            Self::Octets(b) => String::from_utf8_lossy(b).into_owned(),
            Self::Word(w) => w.clone(),
        }
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        match self {
            Self::Octets(b) => b.clone(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn number(&self) -> Option<i64> {
        let text = self.text();
        match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }

    pub(crate) fn message(&self) -> Option<&Message> {
        match self {
            Self::Message(m) => Some(m),
            _ => None,
        }
    }
}

impl Message {
    pub(crate) fn messages<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Message> {
        self.fields
            .iter()
            .filter(move |(n, _)| n == name)
            .filter_map(|(_, f)| f.message())
    }

    pub(crate) fn message(&self, name: &str) -> Option<&Message> {
        self.fields
            .iter()
            .find(|(n, _)| n == name)
            .and_then(|(_, f)| f.message())
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, f)| f.text())
            .unwrap_or_default()
    }

    /// Whether a word stands anywhere in it.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        self.fields.iter().any(|(name, field)| {
            name.contains(word)
                || match field {
                    Field::Message(m) => m.mentions(word),
                    other => other.text().contains(word),
                }
        })
    }
}

pub(crate) fn parse(text: &str) -> Message {
    let chars: Vec<char> = text.chars().collect();
    Reader { chars, at: 0 }.message()
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn skip(&mut self) {
        while let Some(&c) = self.chars.get(self.at) {
            if c == '#' {
                while self.at < self.chars.len() && self.chars[self.at] != '\n' {
                    self.at += 1;
                }
            } else if c.is_whitespace() || c == ',' || c == ';' {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.skip();
        self.chars.get(self.at).copied()
    }

    fn message(&mut self) -> Message {
        let mut message = Message::default();
        while let Some(c) = self.peek() {
            if c == '}' || c == '>' {
                self.at += 1;
                break;
            }
            let name = self.name();
            let colon = self.peek() == Some(':');
            if colon {
                self.at += 1;
            }
            if self.peek() == Some('[') {
                self.at += 1;
                while self.peek() != Some(']') {
                    let value = self.value();
                    message.fields.push((name.clone(), value));
                }
                self.at += 1;
            } else {
                let value = self.value();
                message.fields.push((name, value));
            }
        }
        message
    }

    fn name(&mut self) -> String {
        let start = self.at;
        if self.chars[self.at] == '[' {
            while self.chars[self.at] != ']' {
                self.at += 1;
            }
            self.at += 1;
        } else {
            while self
                .chars
                .get(self.at)
                .is_some_and(|c| c.is_alphanumeric() || *c == '_')
            {
                self.at += 1;
            }
        }
        assert!(
            self.at > start,
            "no name at {start}: {:?}",
            &self.chars[start..start + 20]
        );
        self.chars[start..self.at].iter().collect()
    }

    fn value(&mut self) -> Field {
        match self.peek() {
            Some('{' | '<') => {
                self.at += 1;
                Field::Message(self.message())
            }
            Some('"' | '\'') => {
                let mut octets = Vec::new();
                while matches!(self.peek(), Some('"' | '\'')) {
                    self.string(&mut octets);
                }
                Field::Octets(octets)
            }
            _ => {
                let start = self.at;
                while self
                    .chars
                    .get(self.at)
                    .is_some_and(|c| !c.is_whitespace() && !",;{}[]<>#".contains(*c))
                {
                    self.at += 1;
                }
                Field::Word(self.chars[start..self.at].iter().collect())
            }
        }
    }

    fn string(&mut self, octets: &mut Vec<u8>) {
        let quote = self.chars[self.at];
        self.at += 1;
        while self.chars[self.at] != quote {
            let c = self.chars[self.at];
            self.at += 1;
            if c != '\\' {
                octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            let escape = self.chars[self.at];
            self.at += 1;
            let digits = |reader: &mut Self, radix: u32, most: usize| {
                let mut code = 0u32;
                for _ in 0..most {
                    let Some(digit) = reader.chars.get(reader.at).and_then(|c| c.to_digit(radix))
                    else {
                        break;
                    };
                    code = code * radix + digit;
                    reader.at += 1;
                }
                code
            };
            match escape {
                'n' => octets.push(b'\n'),
                't' => octets.push(b'\t'),
                'r' => octets.push(b'\r'),
                'a' => octets.push(7),
                'b' => octets.push(8),
                'f' => octets.push(12),
                'v' => octets.push(11),
                'x' => octets.push(u8::try_from(digits(self, 16, 2)).unwrap()),
                '0'..='7' => {
                    self.at -= 1;
                    octets.push(u8::try_from(digits(self, 8, 3)).unwrap());
                }
                'u' | 'U' => {
                    let code = digits(self, 16, if escape == 'u' { 4 } else { 8 });
                    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                    octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                other => octets.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.at += 1;
    }
}
