//! Values that go into statements, and rows that come out: the same for every engine.

use std::{fmt, str::FromStr, sync::Arc, vec};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    clock::Timestamp,
    domain::{
        federation::LinkState,
        ids::{
            ApplicationId, BaseDeviceName, CallGroupName, ClusterId, DeviceName, DevicePoolName,
            GeolocationName, LoginName, PolicyName, ProfileName, Ref, ServiceName, SessionId,
            UserId,
        },
        login::LoginType,
        session::{EndReason, Initiator, Role, State},
    },
    store::error::Error,
};

/// One value. Its `Debug` shows the kind and the size only.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// Bytes.
    Blob(Vec<u8>),
    /// A whole number; also times (Unix milliseconds) and flags (0, 1).
    Int(i64),
    /// Nothing.
    Null,
    /// Text; also ids and JSON.
    Text(String),
}

impl Value {
    /// The JSON text of `value`.
    ///
    /// # Errors
    /// [`Error::Unencodable`] when it has no JSON form.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, Error> {
        serde_json::to_string(value)
            .map(Self::Text)
            .map_err(|e| Error::Unencodable(Arc::new(e)))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(bytes) => write!(f, "Blob({} bytes)", bytes.len()),
            Self::Int(_) => f.write_str("Int"),
            Self::Null => f.write_str("Null"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
        }
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.as_millis())
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

impl From<&[u8; 32]> for Value {
    fn from(value: &[u8; 32]) -> Self {
        Self::Blob(value.to_vec())
    }
}

impl From<SessionId> for Value {
    fn from(value: SessionId) -> Self {
        Self::Text(value.to_string())
    }
}

impl From<Ref> for Value {
    fn from(value: Ref) -> Self {
        Self::Text(value.compact())
    }
}

macro_rules! from_names {
    ($($name:ident),+) => {
        $(impl From<&$name> for Value {
            fn from(value: &$name) -> Self {
                Self::Text(value.as_str().to_owned())
            }
        })+
    };
}

from_names!(
    ApplicationId,
    BaseDeviceName,
    CallGroupName,
    ClusterId,
    DeviceName,
    DevicePoolName,
    GeolocationName,
    LoginName,
    PolicyName,
    ProfileName,
    ServiceName,
    UserId
);

macro_rules! from_words {
    ($($name:ident),+) => {
        $(impl From<$name> for Value {
            fn from(value: $name) -> Self {
                Self::Text(value.as_str().to_owned())
            }
        })+
    };
}

from_words!(EndReason, Initiator, LinkState, LoginType, Role, State);

/// One row of an answer. Its columns are taken from left to right, once each.
#[derive(Debug)]
pub struct Row {
    values: vec::IntoIter<Value>,
    column: usize,
}

impl Row {
    /// A row of these values.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        Self {
            values: values.into_iter(),
            column: 0,
        }
    }

    /// The next column, a whole number.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else, as for all that follow.
    pub fn int(&mut self) -> Result<i64, Error> {
        self.opt_int()?.ok_or_else(|| self.wrong("a number"))
    }

    /// The next column, a whole number or nothing.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn opt_int(&mut self) -> Result<Option<i64>, Error> {
        match self.take()? {
            Value::Int(value) => Ok(Some(value)),
            Value::Null => Ok(None),
            Value::Blob(_) | Value::Text(_) => Err(self.wrong("a number")),
        }
    }

    /// The next column, a count.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn count(&mut self) -> Result<u32, Error> {
        u32::try_from(self.int()?).map_err(|_| self.wrong("a count"))
    }

    /// The next column, a flag.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn flag(&mut self) -> Result<bool, Error> {
        match self.int()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong("a flag")),
        }
    }

    /// The next column, a time.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn time(&mut self) -> Result<Timestamp, Error> {
        self.int().map(Timestamp::from_millis)
    }

    /// The next column, a time or nothing.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn opt_time(&mut self) -> Result<Option<Timestamp>, Error> {
        Ok(self.opt_int()?.map(Timestamp::from_millis))
    }

    /// The next column, text.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn text(&mut self) -> Result<String, Error> {
        self.opt_text()?.ok_or_else(|| self.wrong("text"))
    }

    /// The next column, text or nothing.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn opt_text(&mut self) -> Result<Option<String>, Error> {
        match self.take()? {
            Value::Text(value) => Ok(Some(value)),
            Value::Null => Ok(None),
            Value::Blob(_) | Value::Int(_) => Err(self.wrong("text")),
        }
    }

    /// The next column, bytes.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn blob(&mut self) -> Result<Vec<u8>, Error> {
        match self.take()? {
            Value::Blob(value) => Ok(value),
            Value::Int(_) | Value::Null | Value::Text(_) => Err(self.wrong("bytes")),
        }
    }

    /// The next column, bytes or nothing.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn opt_blob(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.take()? {
            Value::Blob(value) => Ok(Some(value)),
            Value::Null => Ok(None),
            Value::Int(_) | Value::Text(_) => Err(self.wrong("bytes")),
        }
    }

    /// The next column, a SHA-256.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn digest(&mut self) -> Result<[u8; 32], Error> {
        <[u8; 32]>::try_from(self.blob()?).map_err(|_| self.wrong("32 bytes"))
    }

    /// The next column, a SHA-256, or nothing.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn opt_digest(&mut self) -> Result<Option<[u8; 32]>, Error> {
        let value = match self.take()? {
            Value::Blob(value) => value,
            Value::Null => return Ok(None),
            Value::Int(_) | Value::Text(_) => return Err(self.wrong("32 bytes")),
        };
        let digest = <[u8; 32]>::try_from(value).map_err(|_| self.wrong("32 bytes"))?;
        Ok(Some(digest))
    }

    /// The next column, text that stands for a `T`.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn parse<T: FromStr>(&mut self) -> Result<T, Error> {
        self.opt_parse()?
            .ok_or_else(|| self.wrong("a well-formed name or word"))
    }

    /// The next column, text that stands for a `T`, or nothing.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn opt_parse<T: FromStr>(&mut self) -> Result<Option<T>, Error> {
        self.opt_text()?
            .map(|text| T::from_str(&text))
            .transpose()
            .map_err(|_| self.wrong("a well-formed name or word"))
    }

    /// The next column, a `T` as JSON.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn json<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        self.opt_json()?.ok_or_else(|| self.wrong("JSON"))
    }

    /// The next column, a `T` as JSON, or nothing.
    ///
    /// # Errors
    /// [`Error::Stored`] when it is anything else.
    pub fn opt_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        self.opt_text()?
            .map(|text| serde_json::from_str(&text))
            .transpose()
            .map_err(|_| self.wrong("the JSON of its record"))
    }

    fn take(&mut self) -> Result<Value, Error> {
        let value = self.values.next().ok_or(Error::Stored {
            column: self.column,
            expected: "there",
        });
        self.column += 1;
        value
    }

    fn wrong(&self, expected: &'static str) -> Error {
        Error::Stored {
            column: self.column.saturating_sub(1),
            expected,
        }
    }
}

/// The form under which names that differ in ASCII case only are one.
#[must_use]
pub fn fold(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_in_order_and_the_wrong_kind_is_told_by_position() {
        let mut row = Row::new(vec![1i64.into(), "two".into(), Value::Null]);
        assert!(row.flag().unwrap());
        assert_eq!(row.text().unwrap(), "two");
        assert!(matches!(row.int(), Err(Error::Stored { column: 2, .. })));
        assert!(matches!(row.text(), Err(Error::Stored { column: 3, .. })));
    }

    #[test]
    fn a_name_that_breaks_its_rule_is_refused() {
        let mut row = Row::new(vec!["no good".into(), "[]".into()]);
        assert!(row.parse::<DeviceName>().is_err());
        assert!(row.json::<LoginType>().is_err());
    }

    #[test]
    fn values_do_not_show_what_they_hold() {
        let shown = format!("{:?}", [Value::from("$argon2id$"), Value::from(4711i64)]);
        assert!(
            !shown.contains("argon") && !shown.contains("4711"),
            "{shown}"
        );
    }
}
