//! `export`: everything that `apply` takes, as files that make the same again.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{
    cell::{self, Cell, SecretText},
    columns::{Column, KINDS, Kind, Shape},
    csv_file,
    item::{Item, each, for_every_kind},
};
use crate::store::{self, Store, Transaction, credentials::Phc};

/// How files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables; files can be put together.
    Toml,
    /// One file per kind, the columns named in its first line.
    Csv,
}

impl Format {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Toml, Self::Csv];

    /// The word, and the ending of the files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Toml => "toml",
            Self::Csv => "csv",
        }
    }

    /// The format of that word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }
}

/// All rows of one kind. Its text holds hashes of PINs.
#[derive(Clone)]
pub struct Exported {
    /// The name of the file, for example `users.csv`.
    pub file: String,
    /// How many rows it has; one at least.
    pub rows: u64,
    /// The text.
    pub text: Zeroizing<String>,
}

impl std::fmt::Debug for Exported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exported")
            .field("file", &self.file)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Writes one state of the cluster's data: a file for each kind of which there is a row, rows in order of their
/// names.
///
/// # Errors
/// [`store::Error`] when the store fails.
pub async fn export(store: &Store, format: Format) -> Result<Vec<Exported>, store::Error> {
    store
        .read(move |tx: &mut dyn Transaction| {
            let mut files = Vec::new();
            for_every_kind!(write(tx, format, &mut files));
            debug_assert_eq!(files.len(), KINDS.len(), "every kind is exported");
            files.retain(|file: &Exported| file.rows > 0);
            Ok(files)
        })
        .await
}

fn write<T: Item>(
    tx: &mut dyn Transaction,
    format: Format,
    files: &mut Vec<Exported>,
) -> Result<(), store::Error> {
    let kind = T::KIND;
    let mut out = Exported {
        file: format!("{}.{}", kind.plural, format.as_str()),
        rows: 0,
        text: Zeroizing::new(String::new()),
    };
    if format == Format::Csv {
        let names = kind.columns.iter().filter(|c| is_exported(c));
        csv_file::write_line(&mut out.text, names.map(|column| column.name));
    }
    each::<T>(tx, |tx, page| {
        let keys: Vec<_> = page.iter().map(Item::key).collect();
        let mut hashes = T::hashes(tx, &keys)?;
        for (row, key) in page.iter().zip(&keys) {
            let cells = with_hash(kind, row.cells(), &mut hashes, key);
            match format {
                Format::Toml => toml_row(&mut out.text, kind, &cells),
                Format::Csv => csv_row(&mut out.text, kind, &cells),
            }
            out.rows += 1;
        }
        Ok(())
    })?;
    files.push(out);
    Ok(())
}

/// Clear secrets are in no store, and a name is exported for each base device.
fn is_exported(column: &Column) -> bool {
    !matches!(column.name, "pin" | "password" | "count")
}

fn with_hash(
    kind: &Kind,
    mut cells: Vec<Cell>,
    hashes: &mut BTreeMap<String, Phc>,
    key: &str,
) -> Vec<Cell> {
    if let Some(hash) = hashes.remove(key)
        && let Some(cell) = kind
            .columns
            .iter()
            .position(|column| matches!(column.name, "pin-hash" | "password-hash"))
            .and_then(|place| cells.get_mut(place))
    {
        *cell = Cell::Secret(SecretText(Zeroizing::new(hash.as_str().to_owned())));
    }
    cells
}

fn csv_row(out: &mut String, kind: &Kind, cells: &[Cell]) {
    let cells = kind.columns.iter().zip(cells);
    let cells: Vec<_> = cells
        .filter(|(column, _)| is_exported(column))
        .map(|(_, cell)| cell::csv(cell))
        .collect();
    csv_file::write_line(out, cells.iter().map(|cell| cell.as_str()));
}

/// Only what differs from the defaults.
pub(super) fn toml_row(out: &mut String, kind: &Kind, cells: &[Cell]) {
    if !out.is_empty() {
        out.push('\n');
    }
    out.push_str("[[");
    out.push_str(kind.name);
    out.push_str("]]\n");
    for (column, cell) in kind.columns.iter().zip(cells) {
        let is_default = match (column.default, cell) {
            (None, _) => false,
            (Some(_), Cell::Secret(text)) => text.0.is_empty(),
            (Some(default), cell) => cell::csv(cell).as_str() == default,
        };
        if is_default || (!is_exported(column) && column.shape == Shape::Secret) {
            continue;
        }
        out.push_str(column.name);
        out.push_str(" = ");
        cell::toml(out, column.shape, cell);
        out.push('\n');
    }
}
