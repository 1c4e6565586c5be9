//! As much of DER as stores of certificates need: elements whose bounds are checked, and their writing. Pure.

/// One element: tag, length and content.
#[derive(Clone, Copy)]
pub(in crate::trust) struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    /// Tag and length too.
    pub whole: &'a [u8],
}

pub(in crate::trust) const INTEGER: u8 = 0x02;
pub(in crate::trust) const BIT_STRING: u8 = 0x03;
pub(in crate::trust) const OCTET_STRING: u8 = 0x04;
pub(in crate::trust) const NULL: u8 = 0x05;
pub(in crate::trust) const OID: u8 = 0x06;
pub(in crate::trust) const UTC_TIME: u8 = 0x17;
pub(in crate::trust) const GENERALIZED_TIME: u8 = 0x18;
pub(in crate::trust) const SEQUENCE: u8 = 0x30;
pub(in crate::trust) const SET: u8 = 0x31;
/// `[0]`, constructed.
pub(in crate::trust) const CONTEXT_0: u8 = 0xA0;
/// `[1]`, constructed.
pub(in crate::trust) const CONTEXT_1: u8 = 0xA1;

/// Takes the element at the front of `input`; `None` when it is not whole there, or not DER.
pub(in crate::trust) fn take<'a>(input: &mut &'a [u8]) -> Option<Element<'a>> {
    let all = *input;
    let (&tag, rest) = all.split_first()?;
    // Nothing here has a tag of more than one byte.
    if tag & 0x1F == 0x1F {
        return None;
    }
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        // More than four bytes of length are more than any file; 0x80 is BER's indefinite form.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            let length = digits
                .iter()
                .fold(0_usize, |length, &digit| length << 8 | usize::from(digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    let whole = all.get(..all.len() - rest.len())?;
    Some(Element {
        tag,
        content,
        whole,
    })
}

/// Takes the element at the front if it has this tag.
pub(in crate::trust) fn take_tag<'a>(input: &mut &'a [u8], tag: u8) -> Option<Element<'a>> {
    let mut ahead = *input;
    let element = take(&mut ahead).filter(|element| element.tag == tag)?;
    *input = ahead;
    Some(element)
}

/// The one element that `input` is.
pub(in crate::trust) fn only(mut input: &[u8], tag: u8) -> Option<Element<'_>> {
    take_tag(&mut input, tag).filter(|_| input.is_empty())
}

/// The elements in `input`, all of them whole.
pub(in crate::trust) fn children(mut input: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while !input.is_empty() {
        found.push(take(&mut input)?);
    }
    Some(found)
}

/// An element of these parts.
pub(in crate::trust) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut written = Vec::with_capacity(length + 6);
    written.push(tag);
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        written.push(short);
    } else {
        let digits = length.to_be_bytes();
        let used = digits.len() - digits.iter().take_while(|digit| **digit == 0).count();
        // At most eight, so the bits don't meet.
        written.push(0x80 | u8::try_from(used).unwrap_or(0));
        written.extend(digits.iter().skip(digits.len() - used));
    }
    for part in parts {
        written.extend_from_slice(part);
    }
    written
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(length in 0_usize..70_000) {
            let content = vec![7; length];
            let written = element(OCTET_STRING, &[&content]);
            let read = only(&written, OCTET_STRING).unwrap();
            prop_assert_eq!(read.content, &content);
            prop_assert_eq!(read.whole, &written);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            drop(children(&bytes));
        }
    }

    #[test]
    fn what_is_not_whole_is_not_read() {
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x01",
            b"\x30\x80\x00\x00",
            b"\x30\x84\xFF\xFF\xFF\xFF",
            b"\x30\x85\x00\x00\x00\x00\x00",
            b"\x1F\x81\x00",
        ] {
            assert!(take(&mut &*bytes).is_none(), "{bytes:?}");
        }
        assert!(only(b"\x30\x00\x00", SEQUENCE).is_none());
        assert!(children(b"\x30\x00\x30").is_none());
    }
}
