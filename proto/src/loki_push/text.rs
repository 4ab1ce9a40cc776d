//! Bytes of a push to text: what is no UTF-8 gets a stand-in, as the original does.

use std::borrow::Cow;

/// A line or a label: each faulty sequence becomes U+FFFD.
pub(super) fn line(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    mended(bytes, '\u{fffd}')
}

/// A value of structured metadata: faulty bytes, and U+FFFD itself, become a space.
pub(super) fn metadata_value(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    let text = mended(bytes, ' ');
    if text.contains('\u{fffd}') { Cow::Owned(text.replace('\u{fffd}', " ")) } else { text }
}

fn mended(bytes: Cow<'_, [u8]>, stand_in: char) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => Cow::Owned(mend(bytes, stand_in)),
        },
        Cow::Owned(bytes) => {
            Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|fault| mend(fault.as_bytes(), stand_in)))
        }
    }
}

fn mend(bytes: &[u8], stand_in: char) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(valid) => valid,
            Err(fault) => std::str::from_utf8(&rest[..fault.valid_up_to()]).unwrap_or_default(),
        };
        text.push_str(valid);
        rest = &rest[valid.len()..];
        // Half a surrogate pair, three bytes as the JSON reader spells it, is one fault; else each byte is one.
        let fault = match rest {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => 3,
            [] => break,
            _ => 1,
        };
        text.push(stand_in);
        rest = &rest[fault..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_get_stand_ins() {
        let both = |bytes: &'static [u8]| {
            (line(Cow::Borrowed(bytes)).into_owned(), metadata_value(Cow::Owned(bytes.to_vec())).into_owned())
        };
        assert_eq!(both(b"a\xffb"), ("a\u{fffd}b".into(), "a b".into()));
        assert_eq!(both(b"\xed\xa0\x80"), ("\u{fffd}".into(), " ".into()));
        assert_eq!(both(b"\xe2\x82"), ("\u{fffd}\u{fffd}".into(), "  ".into()));
        assert_eq!(both("\u{fffd}é".as_bytes()), ("\u{fffd}é".into(), " é".into()));
    }
}
