//! The layout of netlink messages and attributes (RFC 3549, linux/netlink.h). No sockets here.

/// Bit that marks an attribute as holding attributes.
const NLA_F_NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// Length of `struct nlmsghdr` in bytes.
pub(crate) const HEADER: usize = 16;

/// Builds one or many messages into one buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
    message: usize,
}

impl Writer {
    /// Starts a message; the one before it must have been finished.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.message = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&flags.to_ne_bytes());
        self.buffer.extend_from_slice(&sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
    }

    /// Fills in the length of the message that was begun last.
    pub(crate) fn finish(&mut self) {
        let length = u32::try_from(self.buffer.len() - self.message)
            .expect("a single message is far below 4 GiB");
        self.buffer[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
        self.pad();
    }

    /// Adds flags to the message that was begun last.
    pub(crate) fn add_flags(&mut self, flags: u16) {
        let at = self.message + 6;
        let old = u16::from_ne_bytes([self.buffer[at], self.buffer[at + 1]]);
        self.buffer[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// Raw bytes: the fixed header of a protocol.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// An attribute with a value of at most 65,531 bytes.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).expect("callers split long values");
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        self.pad();
    }

    /// A string attribute with its closing NUL.
    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        let length = u16::try_from(value.len() + 5).expect("names are short");
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value.as_bytes());
        self.buffer.push(0);
        self.pad();
    }

    /// An integer in host order, as rtnetlink has them.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// An integer in network order, as nfnetlink has them.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// A nested attribute.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.buffer.len() - start).expect("callers split long lists");
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    /// What was built.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    fn pad(&mut self) {
        while !self.buffer.len().is_multiple_of(4) {
            self.buffer.push(0);
        }
    }
}

/// Iterates over attributes: (type without flags, value). Ends at the first malformed one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this type.
    pub(crate) fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find_map(|(k, value)| (k == kind).then_some(value))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// Splits a datagram into its messages.
pub(crate) fn messages(mut data: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(data, 0)?).ok()?;
        let message = Received {
            kind: u16_at(data, 4)?,
            flags: u16_at(data, 6)?,
            sequence: u32_at(data, 8)?,
            payload: data.get(HEADER..length)?,
        };
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Two bytes in host order.
pub(crate) fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes in host order.
pub(crate) fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}
