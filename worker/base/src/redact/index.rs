//! Every form in which secrets are looked for, and the search for them.
//!
//! Bounded, whatever a credential holds: a form is found by its beginning, as far as it is longer than that, and masked
//! as far as the text agrees with it.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};

use super::MIN_CHARS;
use super::views;

/// A longer form is found by so many bytes at its beginning.
const HEAD: usize = 48;
/// Bytes of a form that are kept. What is beyond them is taken for granted when all of them were found.
const KEPT: usize = 4 * 1024;
/// Bytes of heads in all, which the matcher takes some thirty times as many for while it is built.
const HEADS: usize = 64 * 1024;
/// Bytes of forms in all.
const FORMS: usize = 256 * 1024;
/// Bytes of a base64 text that may follow what is sure of it: a character that another byte is in, and padding.
const BASE64_END: usize = 3;

const BASE64: [GeneralPurpose; 2] =
    [GeneralPurpose::new(&alphabet::STANDARD, NO_PAD), GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD)];

/// A form of a secret.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Form {
    /// What is kept of it.
    bytes: Vec<u8>,
    /// How many bytes of it must be there.
    needed: usize,
    /// Bytes that follow those that are kept.
    beyond: usize,
    is_base64: bool,
}

/// Forms to look for, as far as there is room.
#[derive(Debug, Default)]
pub(super) struct Forms {
    forms: Vec<Form>,
    heads: usize,
    bytes: usize,
}

impl Forms {
    /// The text as it stands, escaped or wrapped. `length` is that of the secret if the text is only its beginning.
    /// False if there is no room.
    pub(super) fn add_plain(&mut self, secret: &str, length: usize) -> bool {
        let bytes = secret.as_bytes();
        let beyond = length.saturating_sub(bytes.len());
        let canonical = views::canonical(bytes);
        let is_room = self.add(bytes, beyond, false);
        is_room & (canonical == bytes || self.add(&canonical, beyond, false))
    }

    /// The text in hexadecimal digits and in base64, wherever in a longer text it is.
    pub(super) fn add_encoded(&mut self, secret: &str, length: usize) -> bool {
        let bytes = &secret.as_bytes()[..secret.len().min(KEPT / 2)];
        let beyond = length.saturating_sub(bytes.len());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut is_room = self.add(hex.as_bytes(), 2 * beyond, false);
        is_room &= self.add(hex.to_uppercase().as_bytes(), 2 * beyond, false);
        is_room & self.add_base64(bytes, beyond)
    }

    /// The text, and its base64, of which nothing less than the whole is secret.
    pub(super) fn add_whole(&mut self, secret: &str) -> bool {
        let base64 = BASE64.map(|base64| base64.encode(secret));
        let mut is_room = self.push(secret.as_bytes(), secret.len(), 0, false);
        for text in &base64 {
            is_room &= self.push(text.as_bytes(), text.len(), 0, true);
        }
        is_room
    }

    /// A text's base64 depends on how many bytes stand before it, and its first and last character on their neighbours.
    fn add_base64(&mut self, bytes: &[u8], beyond: usize) -> bool {
        let mut is_room = true;
        for before in 0..3_usize {
            let padded = [&[0; 2][..before.min(2)], bytes].concat();
            let unsure_before = before + usize::from(before > 0);
            let sure = padded.len() * 8 / 6;
            let beyond = if beyond > 0 { beyond * 4 / 3 + 1 } else { 0 };
            let [standard, for_urls] = BASE64.map(|base64| base64.encode(&padded));
            is_room &= self.add(&standard.as_bytes()[unsure_before..sure], beyond, true);
            // Most texts have no character in which the alphabets differ.
            if for_urls != standard {
                is_room &= self.add(&for_urls.as_bytes()[unsure_before..sure], beyond, true);
            }
        }
        is_room
    }

    /// A form, and how it is in a text that was wrapped.
    fn add(&mut self, bytes: &[u8], beyond: usize, is_base64: bool) -> bool {
        let bytes = &bytes[..bytes.len().min(KEPT)];
        let unwrapped = views::unwrapped(bytes);
        let is_room = self.push(bytes, bytes.len().min(HEAD), beyond, is_base64);
        is_room & (unwrapped == bytes || self.push(&unwrapped, unwrapped.len().min(HEAD), beyond, is_base64))
    }

    fn push(&mut self, bytes: &[u8], needed: usize, beyond: usize, is_base64: bool) -> bool {
        // In another encoding than UTF-8 it may have fewer characters than it has bytes, which makes it no less secret.
        if bytes.len() < MIN_CHARS {
            return true;
        }
        if self.heads + needed > HEADS || self.bytes + bytes.len() > FORMS {
            return false;
        }
        self.heads += needed;
        self.bytes += bytes.len();
        self.forms.push(Form { bytes: bytes.to_owned(), needed, beyond, is_base64 });
        true
    }

    /// What finds them; nothing if there are none.
    pub(super) fn index(mut self) -> Option<Index> {
        self.forms.sort_unstable_by(|one, other| (one.head(), &one.bytes).cmp(&(other.head(), &other.bytes)));
        self.forms.dedup();
        let mut groups: Vec<Range<usize>> = Vec::new();
        for (at, form) in self.forms.iter().enumerate() {
            match groups.last_mut() {
                Some(group) if self.forms[group.start].head() == form.head() => group.end = at + 1,
                _ => groups.push(at..at + 1),
            }
        }
        let heads = groups.iter().map(|group| self.forms[group.start].head());
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .dense_depth(1)
            .build(heads);
        self.forms.shrink_to_fit();
        // Building fails only beyond 2 GiB.
        (!groups.is_empty()).then_some(Index { matcher: matcher.ok()?, groups, forms: self.forms })
    }
}

impl Form {
    fn head(&self) -> &[u8] {
        &self.bytes[..self.needed]
    }
}

/// Finds secrets.
pub(super) struct Index {
    matcher: AhoCorasick,
    /// For each pattern of the matcher, the forms that begin with it, in order.
    groups: Vec<Range<usize>>,
    forms: Vec<Form>,
}

impl Index {
    /// Where in the text secrets are, in order and apart.
    pub(super) fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = self.find_as_it_stands(text.as_bytes());
        views::each(text.as_bytes(), |view| {
            found.extend(self.find_as_it_stands(&view.bytes).iter().map(|range| view.original(range)));
        });
        merged(found)
    }

    /// Where the text may end in the beginning of a secret.
    pub(super) fn find_cut(&self, text: &str) -> Option<Range<usize>> {
        let length = text.len();
        let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER).as_bytes();
        let starts = [text, views::without_cut_escape(text)].map(|text| {
            let mut start = self.cut_start(text);
            views::each(text, |view| {
                let at = self.cut_start(&view.bytes).map(|at| view.original(&(at..at + 1)).start);
                start = start.into_iter().chain(at).min();
            });
            start
        });
        starts.into_iter().flatten().min().map(|start| start..length)
    }

    /// Whether there is a secret that the whole text is.
    pub(super) fn is_secret(&self, text: &str) -> bool {
        self.find_as_it_stands(text.as_bytes()).first() == Some(&(0..text.len()))
    }

    /// Whether anything is to be replaced in the text, or looked for more closely.
    pub(super) fn may_be_in(&self, text: &str) -> bool {
        views::is_escaped(text.as_bytes()) || self.matcher.is_match(text)
    }

    fn find_as_it_stands(&self, text: &[u8]) -> Vec<Range<usize>> {
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(head) = self.matcher.find(Input::new(text).range(at..)) {
            let group = &self.forms[self.groups[head.pattern().as_usize()].clone()];
            at = head.start() + extent(group, &text[head.start()..], head.len());
            found.push(head.start()..at);
        }
        found
    }

    /// Where the first part of a head begins that the text ends with.
    fn cut_start(&self, text: &[u8]) -> Option<usize> {
        let longest = self.matcher.max_pattern_len().saturating_sub(1);
        (text.len().saturating_sub(longest)..text.len()).find(|at| {
            let tail = &text[*at..];
            let next = self.groups.partition_point(|group| self.forms[group.start].head() < tail);
            self.groups.get(next).is_some_and(|group| self.forms[group.start].head().starts_with(tail))
        })
    }
}

/// How many bytes of `text`, which begins with the head of these forms, are to be masked. The forms are in order, so that
/// the one that agrees most with the text is next to the place where the text itself would be.
fn extent(forms: &[Form], text: &[u8], head: usize) -> usize {
    let place = forms.partition_point(|form| form.bytes.as_slice() < text);
    let neighbours = &forms[place.saturating_sub(1)..(place + 1).min(forms.len())];
    let extents = neighbours.iter().map(|form| {
        let agreed = form.bytes.iter().zip(text).take_while(|(one, other)| one == other).count();
        if agreed < form.bytes.len() {
            return agreed;
        }
        let end = (agreed + form.beyond).min(text.len());
        if form.is_base64 { end + base64_end(&text[end..]) } else { end }
    });
    extents.max().unwrap_or_default().max(head)
}

/// Bytes that belong to the end of a base64 text whose beginning was found.
fn base64_end(rest: &[u8]) -> usize {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let last = usize::from(rest.first().is_some_and(is_digit));
    last + rest[last..].iter().take(BASE64_END - 1).take_while(|byte| **byte == b'=').count()
}

fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    ranges.dedup_by(|later, earlier| {
        let overlaps = later.start < earlier.end;
        if overlaps {
            earlier.end = earlier.end.max(later.end);
        }
        overlaps
    });
    ranges
}
