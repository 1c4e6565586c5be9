//! Phone objects as XML. Pure.
//!
//! The element order is that of the newer phone schema: title, prompt, softkeys, then the object's own
//! children, and `Name, Position, URL` in a softkey. Phones cut or refuse what exceeds their limits, so a
//! text from elsewhere is cut and cleaned on its way in, and our own words are short enough (32 characters for
//! titles, prompts and names).

use quick_xml::se::Serializer;
use serde::Serialize;

/// Longest `Text`, in characters.
pub const MAX_TEXT_CHARS: usize = 4_000;
/// Most entries of a menu.
pub const MAX_ENTRIES: usize = 100;
/// Longest name of an entry, in characters.
pub const MAX_ENTRY_CHARS: usize = 64;
/// Longest URL, in characters before XML escaping.
pub const MAX_URL_CHARS: usize = 256;

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
const TITLE: &str = "Extension Mobility";
/// What is shown should an object ever not serialise; the phone must get something it can parse.
const BLANK_PAGE: &str = "<CiscoIPPhoneText><Title>Extension Mobility</Title></CiscoIPPhoneText>";

/// A key under the screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SoftKey {
    #[serde(rename = "Name")]
    name: &'static str,
    #[serde(rename = "Position")]
    position: u8,
    #[serde(rename = "URL")]
    url: String,
}

impl SoftKey {
    /// A key that fetches a page or does something on the phone (`SoftKey:Exit`).
    #[must_use]
    pub fn new(position: u8, name: &'static str, url: impl Into<String>) -> Self {
        let url = url.into();
        Self {
            name,
            position,
            url,
        }
    }
}

/// A field of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct InputItem {
    /// What stands beside it.
    #[serde(rename = "DisplayName")]
    pub label: &'static str,
    /// The query parameter that carries what was typed.
    #[serde(rename = "QueryStringParam")]
    pub param: &'static str,
    /// What the keypad types: `A` any text, `T` telephone digits, `N` digits, `P` masked.
    #[serde(rename = "InputFlags")]
    pub flags: &'static str,
}

/// A page that says something: `CiscoIPPhoneText`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename = "CiscoIPPhoneText")]
pub struct TextPage {
    #[serde(rename = "Title")]
    title: &'static str,
    #[serde(rename = "Prompt")]
    prompt: &'static str,
    #[serde(rename = "SoftKeyItem")]
    keys: Vec<SoftKey>,
    #[serde(rename = "Text")]
    text: String,
}

impl TextPage {
    /// A page of lines. A line break inside a line becomes a blank, so that no line can pass for another.
    #[must_use]
    pub fn new(prompt: &'static str, lines: &[String], keys: Vec<SoftKey>) -> Self {
        let lines: Vec<String> = lines.iter().map(|line| clean(line)).collect();
        let text = lines.join("\n").chars().take(MAX_TEXT_CHARS).collect();
        Self {
            title: TITLE,
            prompt,
            keys,
            text,
        }
    }

    /// The document.
    #[must_use]
    pub fn to_xml(&self) -> String {
        document(self)
    }
}

/// A page that asks for something: `CiscoIPPhoneInput`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename = "CiscoIPPhoneInput")]
pub struct InputPage {
    #[serde(rename = "Title")]
    title: &'static str,
    #[serde(rename = "Prompt")]
    prompt: &'static str,
    #[serde(rename = "SoftKeyItem")]
    keys: Vec<SoftKey>,
    #[serde(rename = "URL")]
    url: String,
    #[serde(rename = "InputItem")]
    items: Vec<InputItem>,
}

impl InputPage {
    /// A form whose answers go to `url`.
    #[must_use]
    pub fn new(prompt: &'static str, url: String, items: Vec<InputItem>) -> Self {
        let keys = vec![
            SoftKey::new(1, "Submit", "SoftKey:Submit"),
            SoftKey::new(2, "<<", "SoftKey:<<"),
            SoftKey::new(3, "Exit", "SoftKey:Exit"),
        ];
        Self {
            title: TITLE,
            prompt,
            keys,
            url,
            items,
        }
    }

    /// The document.
    #[must_use]
    pub fn to_xml(&self) -> String {
        document(self)
    }
}

/// An entry of a menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MenuItem {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "URL")]
    url: String,
}

impl MenuItem {
    /// An entry that leads to `url`. A name from elsewhere is cleaned, and cut at the phone's limit.
    #[must_use]
    pub fn new(name: &str, url: String) -> Self {
        let name = clean(name).chars().take(MAX_ENTRY_CHARS).collect();
        Self { name, url }
    }
}

/// A page to choose from: `CiscoIPPhoneMenu`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename = "CiscoIPPhoneMenu")]
pub struct MenuPage {
    #[serde(rename = "Title")]
    title: &'static str,
    #[serde(rename = "Prompt")]
    prompt: &'static str,
    #[serde(rename = "SoftKeyItem")]
    keys: Vec<SoftKey>,
    #[serde(rename = "MenuItem")]
    items: Vec<MenuItem>,
}

impl MenuPage {
    /// A menu; a phone shows the first [`MAX_ENTRIES`] of it.
    #[must_use]
    pub fn new(prompt: &'static str, mut items: Vec<MenuItem>) -> Self {
        items.truncate(MAX_ENTRIES);
        let keys = vec![
            SoftKey::new(1, "Select", "SoftKey:Select"),
            SoftKey::new(2, "Exit", "SoftKey:Exit"),
        ];
        Self {
            title: TITLE,
            prompt,
            keys,
            items,
        }
    }

    /// The document.
    #[must_use]
    pub fn to_xml(&self) -> String {
        document(self)
    }
}

fn document(object: &impl Serialize) -> String {
    let mut body = String::new();
    let mut serializer = Serializer::new(&mut body);
    // A line per element, not indented: readable in a trace and no longer than needed.
    serializer.indent(' ', 0);
    match object.serialize(serializer) {
        Ok(_) => format!("{DECLARATION}{body}\n"),
        Err(_) => format!("{DECLARATION}{BLANK_PAGE}\n"),
    }
}

/// One line that XML 1.0 can carry: controls become blanks, code points that XML forbids U+FFFD.
fn clean(line: &str) -> String {
    line.chars()
        .map(|c| match c {
            c if c.is_control() => ' ',
            '\u{FFFE}' | '\u{FFFF}' => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_and_no_line_passes_for_another() {
        let lines = ["<b>&\"'".to_owned(), "a\nRef: \u{0}x\u{FFFF}".to_owned()];
        let xml = TextPage::new("", &lines, vec![]).to_xml();
        assert!(
            xml.contains("<Text>&lt;b&gt;&amp;\"'\na Ref:  x\u{FFFD}</Text>"),
            "{xml}"
        );
    }

    #[test]
    fn a_text_is_cut_at_the_phones_limit() {
        let page = TextPage::new("", &["ü".repeat(5_000)], vec![]);
        assert_eq!(page.text.chars().count(), MAX_TEXT_CHARS);
    }
}
