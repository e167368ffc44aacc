//! Tokens to tree. Recursive descent with precedence climbing; macros expand on the way.
//!
//! The messages are those of the reference's generated parser where a person is likely to see
//! them. One syntax error ends the parse: what follows would be guesses.

use crate::ast::{Entry, Expr, Field, Item, Kind, op};
use crate::env::Features;
use crate::errors::Issues;
use crate::lexer::{Lexeme, Token, tokens};
use crate::literal::unescape;
use crate::macros;
use crate::value::Value;
use crate::words::is_reserved;

/// Longest source accepted, in code points.
const MAX_CODE_POINTS: usize = 100_000;
/// Deepest nesting accepted in the source.
const MAX_NESTING: usize = 250;
/// Highest tree accepted: what is evaluated recursively must fit a thread's stack.
const MAX_HEIGHT: usize = 400;
/// Most nodes accepted: a macro that copies its target could otherwise double without end.
const MAX_NODES: usize = 200_000;

/// What may begin an expression, as the reference's parser lists it.
const PRIMARY: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, \
                       NUM_UINT, STRING, BYTES, IDENTIFIER}";

/// Something was reported; the parse is over.
pub(crate) struct Stop;
type Parsed = Result<Expr, Stop>;

pub(crate) struct Parser<'a, 'i> {
    lexemes: Vec<Lexeme>,
    at: usize,
    next_id: usize,
    nesting: usize,
    pub(crate) features: &'a Features,
    pub(crate) issues: &'i mut Issues<'a>,
}

/// Parses a whole source. The second value is the number of ids given out.
pub(crate) fn parse<'a>(
    chars: &'a [char],
    features: &'a Features,
    issues: &mut Issues<'a>,
) -> Option<(Expr, usize)> {
    if chars.len() > MAX_CODE_POINTS {
        let size = chars.len();
        issues.report(
            0,
            format!(
                "expression code point size exceeds limit: size: {size}, limit {MAX_CODE_POINTS}"
            ),
        );
        return None;
    }
    let lexemes = tokens(chars, issues);
    let mut parser = Parser {
        lexemes,
        at: 0,
        next_id: 0,
        nesting: 0,
        features,
        issues,
    };
    let expr = parser.expr().ok()?;
    if parser.peek() != &Token::End {
        let (pos, text) = (parser.pos(), parser.lexeme().text.clone());
        let word = if parser.lexemes[parser.at + 1].token == Token::End {
            "extraneous"
        } else {
            "mismatched"
        };
        parser.issues.report(
            pos,
            format!("Syntax error: {word} input '{text}' expecting <EOF>"),
        );
        return None;
    }
    let ids = parser.next_id;
    Some((expr, ids))
}

impl Parser<'_, '_> {
    fn lexeme(&self) -> &Lexeme {
        &self.lexemes[self.at.min(self.lexemes.len() - 1)]
    }

    fn peek(&self) -> &Token {
        &self.lexeme().token
    }

    fn ahead(&self, by: usize) -> &Token {
        &self.lexemes[(self.at + by).min(self.lexemes.len() - 1)].token
    }

    fn pos(&self) -> usize {
        self.lexeme().pos
    }

    fn is(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(o) if *o == op)
    }

    fn take(&mut self, op: &str) -> bool {
        let found = self.is(op);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, op: &str) -> Result<usize, Stop> {
        let pos = self.pos();
        if self.take(op) {
            return Ok(pos);
        }
        let text = self.lexeme().text.clone();
        self.stop(
            pos,
            format!("Syntax error: mismatched input '{text}' expecting '{op}'"),
        )
    }

    pub(crate) fn stop<T>(&mut self, pos: usize, message: impl Into<String>) -> Result<T, Stop> {
        self.issues.report(pos, message);
        Err(Stop)
    }

    /// Makes a node, unless the tree grows too high or too large.
    pub(crate) fn node(&mut self, pos: usize, kind: Kind) -> Parsed {
        let depth = Expr::height(&kind);
        if depth > MAX_HEIGHT {
            return self.stop(
                pos,
                format!("expression recursion limit exceeded: {MAX_NESTING}"),
            );
        }
        if self.next_id >= MAX_NODES {
            return self.stop(
                pos,
                format!("expression has too many nodes: more than {MAX_NODES}"),
            );
        }
        let id = self.next_id;
        self.next_id += 1;
        Ok(Expr {
            id,
            pos,
            depth,
            kind,
        })
    }

    /// Counts a copy's nodes against the limit.
    pub(crate) fn copy(&mut self, expr: &Expr) -> Parsed {
        self.next_id += 1;
        let mut nodes = 0usize;
        count(expr, &mut nodes);
        if self.next_id.saturating_add(nodes) >= MAX_NODES {
            return self.stop(
                expr.pos,
                format!("expression has too many nodes: more than {MAX_NODES}"),
            );
        }
        self.next_id += nodes;
        Ok(expr.clone())
    }

    pub(crate) fn call(&mut self, pos: usize, function: &str, args: Vec<Expr>) -> Parsed {
        self.node(
            pos,
            Kind::Call {
                target: None,
                function: function.into(),
                args,
            },
        )
    }

    fn expr(&mut self) -> Parsed {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            let pos = self.pos();
            return self.stop(
                pos,
                format!("expression recursion limit exceeded: {MAX_NESTING}"),
            );
        }
        let condition = self.or()?;
        let expr = if self.is("?") {
            let pos = self.pos();
            self.at += 1;
            let yes = self.or()?;
            self.expect(":")?;
            let no = self.expr()?;
            self.call(pos, op::CONDITIONAL, vec![condition, yes, no])?
        } else {
            condition
        };
        self.nesting -= 1;
        Ok(expr)
    }

    fn or(&mut self) -> Parsed {
        self.chain("||", op::OR, |p| p.chain("&&", op::AND, |p| p.binary(0)))
    }

    /// `a && b && c`, as a balanced tree so that long chains stay low.
    fn chain(&mut self, token: &str, name: &str, operand: fn(&mut Self) -> Parsed) -> Parsed {
        let first = operand(self)?;
        if !self.is(token) {
            return Ok(first);
        }
        let (mut terms, mut ops) = (vec![Some(first)], Vec::new());
        while self.is(token) {
            ops.push(self.pos());
            self.at += 1;
            terms.push(Some(operand(self)?));
        }
        self.balance(name, &mut terms, &ops, 0, ops.len() - 1)
    }

    fn balance(
        &mut self,
        name: &str,
        terms: &mut [Option<Expr>],
        ops: &[usize],
        lo: usize,
        hi: usize,
    ) -> Parsed {
        let mid = (lo + hi).div_ceil(2);
        let mut leaf = |at: usize| terms[at].take().expect("each term is taken once");
        let left = if mid == lo {
            leaf(mid)
        } else {
            self.balance(name, terms, ops, lo, mid - 1)?
        };
        let mut leaf = |at: usize| terms[at].take().expect("each term is taken once");
        let right = if mid == hi {
            leaf(mid + 1)
        } else {
            self.balance(name, terms, ops, mid + 1, hi)?
        };
        self.call(ops[mid], name, vec![left, right])
    }

    fn operator(&self) -> Option<(&'static str, usize)> {
        Some(match self.peek() {
            Token::Keyword("in") => (op::IN, 0),
            Token::Op(o) => match *o {
                "==" => (op::EQUALS, 0),
                "!=" => (op::NOT_EQUALS, 0),
                "<" => ("_<_", 0),
                "<=" => ("_<=_", 0),
                ">" => ("_>_", 0),
                ">=" => ("_>=_", 0),
                "+" => (op::ADD, 1),
                "-" => ("_-_", 1),
                "*" => ("_*_", 2),
                "/" => ("_/_", 2),
                "%" => ("_%_", 2),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// Relations, sums and products by rising precedence, each to the left.
    fn binary(&mut self, floor: usize) -> Parsed {
        let mut left = self.unary()?;
        while let Some((name, precedence)) = self.operator().filter(|(_, p)| *p >= floor) {
            let pos = self.pos();
            self.at += 1;
            let right = self.binary(precedence + 1)?;
            left = self.call(pos, name, vec![left, right])?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        for (sign, name) in [("!", op::NOT), ("-", op::NEGATE)] {
            if !self.is(sign) {
                continue;
            }
            let literal = matches!(self.ahead(1), Token::Int(_) | Token::Double(_));
            if sign == "-" && literal {
                break;
            }
            let pos = self.pos();
            let mut count = 0usize;
            while self.take(sign) {
                count += 1;
                if sign == "-"
                    && self.is("-")
                    && matches!(self.ahead(1), Token::Int(_) | Token::Double(_))
                {
                    // The last sign belongs to the number.
                    break;
                }
            }
            let operand = self.member()?;
            if count.is_multiple_of(2) {
                return Ok(operand);
            }
            return self.call(pos, name, vec![operand]);
        }
        self.member()
    }

    fn member(&mut self) -> Parsed {
        let mut expr = self.primary()?;
        loop {
            let pos = self.pos();
            if self.take(".") {
                let optional = self.optional_mark(pos, ".?")?;
                let field_pos = self.pos();
                let (field, quoted) = match self.peek().clone() {
                    Token::Ident(name) => (name, false),
                    Token::Quoted(name) => {
                        if !self.features.quoted_fields {
                            return self.stop(field_pos, "unsupported syntax: '`'");
                        }
                        (name, true)
                    }
                    _ => {
                        let text = self.lexeme().text.clone();
                        let eof = if self.peek() == &Token::End {
                            "no viable alternative"
                        } else {
                            "mismatched"
                        };
                        return if eof == "mismatched" {
                            self.stop(
                                field_pos,
                                format!(
                                    "Syntax error: mismatched input '{text}' expecting IDENTIFIER"
                                ),
                            )
                        } else {
                            self.stop(
                                field_pos,
                                "Syntax error: no viable alternative at input '.'",
                            )
                        };
                    }
                };
                self.at += 1;
                if !optional && !quoted && self.is("(") {
                    expr = self.method(expr, field)?;
                } else if optional {
                    let name = self.node(field_pos, Kind::Literal(Value::from(field.as_str())))?;
                    expr = self.call(pos, op::OPT_SELECT, vec![expr, name])?;
                } else {
                    let operand = Box::new(expr);
                    expr = self.node(
                        pos,
                        Kind::Select {
                            operand,
                            field,
                            test_only: false,
                        },
                    )?;
                }
            } else if self.take("[") {
                let optional = self.optional_mark(pos, "[?")?;
                let index = self.expr()?;
                self.expect("]")?;
                let name = if optional { op::OPT_INDEX } else { op::INDEX };
                expr = self.call(pos, name, vec![expr, index])?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn optional_mark(&mut self, pos: usize, syntax: &str) -> Result<bool, Stop> {
        if !self.take("?") {
            return Ok(false);
        }
        if !self.features.optional_types {
            return self.stop(pos, format!("unsupported syntax '{syntax}'"));
        }
        Ok(true)
    }

    fn method(&mut self, target: Expr, function: String) -> Parsed {
        let pos = self.pos();
        let args = self.arguments()?;
        if let Some(expanded) = macros::method(self, pos, &target, &function, &args) {
            return expanded;
        }
        self.node(
            pos,
            Kind::Call {
                target: Some(Box::new(target)),
                function,
                args,
            },
        )
    }

    /// `(a, b)`, from the opening parenthesis on.
    fn arguments(&mut self) -> Result<Vec<Expr>, Stop> {
        self.expect("(")?;
        let mut args = Vec::new();
        if self.take(")") {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.take(")") {
                return Ok(args);
            }
            if !self.take(",") {
                let (pos, text) = (self.pos(), self.lexeme().text.clone());
                return self.stop(
                    pos,
                    format!("Syntax error: mismatched input '{text}' expecting ')'"),
                );
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let pos = self.pos();
        let token = self.peek().clone();
        match token {
            Token::Op("(") => {
                self.at += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Op("[") => {
                self.at += 1;
                let items = self.items()?;
                self.node(pos, Kind::List { items })
            }
            Token::Op("{") => {
                self.at += 1;
                let entries = self.entries()?;
                self.node(pos, Kind::Map { entries })
            }
            Token::Op(".") if matches!(self.ahead(1), Token::Ident(_)) => {
                self.at += 1;
                self.name(true)
            }
            Token::Ident(_) => self.name(false),
            Token::Op("-") => {
                self.at += 1;
                self.number(pos, true)
            }
            Token::Int(_) | Token::Uint(_) | Token::Double(_) => self.number(pos, false),
            Token::Str(ref text) | Token::Bytes(ref text) => {
                let bytes = matches!(token, Token::Bytes(_));
                self.at += 1;
                let value = match unescape(text, bytes) {
                    Ok(value) => value,
                    Err(message) => return self.stop(pos, message),
                };
                self.node(pos, Kind::Literal(value))
            }
            Token::Keyword("true") => self.literal(pos, Value::Bool(true)),
            Token::Keyword("false") => self.literal(pos, Value::Bool(false)),
            Token::Keyword("null") => self.literal(pos, Value::Null),
            _ => {
                let text = self.lexeme().text.clone();
                // One token too many is what the reference's parser guesses first.
                let extra = token != Token::End
                    && !matches!(
                        self.ahead(1),
                        Token::End | Token::Op(")" | "]" | "}" | "," | ":")
                    );
                let word = if extra { "extraneous" } else { "mismatched" };
                self.stop(
                    pos,
                    format!("Syntax error: {word} input '{text}' expecting {PRIMARY}"),
                )
            }
        }
    }

    fn literal(&mut self, pos: usize, value: Value) -> Parsed {
        self.at += 1;
        self.node(pos, Kind::Literal(value))
    }

    fn number(&mut self, pos: usize, negative: bool) -> Parsed {
        let sign = if negative { "-" } else { "" };
        let value = match self.peek().clone() {
            Token::Int(text) => {
                let parsed = match text.strip_prefix("0x") {
                    Some(hex) => i64::from_str_radix(&format!("{sign}{hex}"), 16),
                    None => format!("{sign}{text}").parse(),
                };
                match parsed {
                    Ok(n) => Value::Int(n),
                    Err(_) => return self.stop(pos, "invalid int literal"),
                }
            }
            Token::Uint(text) if !negative => {
                let parsed = match text.strip_prefix("0x") {
                    Some(hex) => u64::from_str_radix(hex, 16),
                    None => text.parse(),
                };
                match parsed {
                    Ok(n) => Value::Uint(n),
                    Err(_) => return self.stop(pos, "invalid uint literal"),
                }
            }
            Token::Double(text) => match format!("{sign}{text}").parse::<f64>() {
                Ok(n) if n.is_finite() => Value::Double(n),
                _ => return self.stop(pos, "invalid double literal"),
            },
            _ => {
                let text = self.lexeme().text.clone();
                let pos = self.pos();
                return self.stop(
                    pos,
                    format!("Syntax error: no viable alternative at input '-{text}'"),
                );
            }
        };
        self.literal(pos, value)
    }

    /// An identifier, a call of a global function, or a message.
    fn name(&mut self, rooted: bool) -> Parsed {
        let pos = if rooted {
            self.lexemes[self.at - 1].pos
        } else {
            self.pos()
        };
        let dot = if rooted { "." } else { "" };
        if let Some(length) = self.message_ahead() {
            let mut name = String::from(dot);
            for offset in 0..length {
                if let Token::Ident(part) = self.ahead(offset) {
                    if offset > 0 {
                        name.push('.');
                    }
                    name.push_str(part);
                }
            }
            self.at += length;
            let brace = self.expect("{")?;
            let fields = self.fields()?;
            return self.node(brace, Kind::Struct { name, fields });
        }
        let Token::Ident(word) = self.peek().clone() else {
            return self.stop(pos, "Syntax error: mismatched input expecting IDENTIFIER");
        };
        if is_reserved(&word) {
            return self.stop(pos, format!("reserved identifier: {word}"));
        }
        self.at += 1;
        if self.is("(") {
            let open = self.pos();
            let args = self.arguments()?;
            if !rooted && let Some(expanded) = macros::global(self, open, &word, &args) {
                return expanded;
            }
            let function = format!("{dot}{word}");
            return self.node(
                open,
                Kind::Call {
                    target: None,
                    function,
                    args,
                },
            );
        }
        self.node(pos, Kind::Ident(format!("{dot}{word}")))
    }

    /// How many tokens form the name before a `{`, where a message begins here.
    fn message_ahead(&self) -> Option<usize> {
        let mut length = 1;
        loop {
            match self.ahead(length) {
                Token::Op("{") => return Some(length),
                Token::Op(".") if matches!(self.ahead(length + 1), Token::Ident(_)) => length += 2,
                _ => return None,
            }
        }
    }

    fn items(&mut self) -> Result<Vec<Item>, Stop> {
        let mut items = Vec::new();
        while !self.take("]") {
            let pos = self.pos();
            let optional = self.optional_mark(pos, "?")?;
            items.push(Item {
                value: self.expr()?,
                optional,
            });
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(items)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Stop> {
        let mut entries = Vec::new();
        while !self.take("}") {
            let pos = self.pos();
            let optional = self.optional_mark(pos, "?")?;
            let key = self.expr()?;
            self.expect(":")?;
            entries.push(Entry {
                key,
                value: self.expr()?,
                optional,
            });
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(entries)
    }

    fn fields(&mut self) -> Result<Vec<Field>, Stop> {
        let mut fields = Vec::new();
        while !self.take("}") {
            let pos = self.pos();
            let optional = self.optional_mark(pos, "?")?;
            let name = match self.peek().clone() {
                Token::Ident(name) => name,
                Token::Quoted(name) if self.features.quoted_fields => name,
                _ => {
                    let (pos, text) = (self.pos(), self.lexeme().text.clone());
                    return self.stop(
                        pos,
                        format!("Syntax error: mismatched input '{text}' expecting IDENTIFIER"),
                    );
                }
            };
            self.at += 1;
            let colon = self.expect(":")?;
            fields.push(Field {
                pos: colon,
                name,
                value: self.expr()?,
                optional,
            });
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(fields)
    }
}

fn count(expr: &Expr, nodes: &mut usize) {
    *nodes += 1;
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => count(operand, nodes),
        Kind::Call { target, args, .. } => {
            args.iter()
                .chain(target.as_deref())
                .for_each(|e| count(e, nodes));
        }
        Kind::List { items } => items.iter().for_each(|i| count(&i.value, nodes)),
        Kind::Map { entries } => entries.iter().for_each(|e| {
            count(&e.key, nodes);
            count(&e.value, nodes);
        }),
        Kind::Struct { fields, .. } => fields.iter().for_each(|f| count(&f.value, nodes)),
        Kind::Comprehension(c) => [&c.range, &c.accu_init, &c.condition, &c.step, &c.result]
            .into_iter()
            .for_each(|e| count(e, nodes)),
    }
}
