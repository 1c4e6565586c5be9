//! One record changed by itself: what is given takes the place of what is there, and the whole goes the way of a
//! file, so that the same checks hold.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::{
    Applier, Change, Error, Mode, Progress, Rest, Source, Terms,
    cell::{self, Cell, SecretText, read_csv},
    columns::{Kind, Shape},
    export,
    item::{Item, for_every_kind},
};
use crate::{
    secret::Pin,
    store::{self, Transaction},
    watch,
};

/// Whether the record is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It must not be there yet.
    Add,
    /// It must be there.
    Set,
}

/// A change of one record.
#[derive(Debug)]
pub struct Edit {
    /// What kind of record.
    pub kind: &'static Kind,
    /// Its name.
    pub name: String,
    /// Whether it is new.
    pub how: How,
    /// Columns by name, each as a CSV file would have it.
    pub columns: BTreeMap<String, String>,
    /// The user's new PIN.
    pub pin: Option<Pin>,
}

impl Applier {
    /// Changes one record; `actor` is who is on record for it. Where somebody else changes the same record meanwhile,
    /// what is given here is merged into what they have left.
    ///
    /// # Errors
    /// [`Error`]; in every case nothing was changed.
    pub async fn edit(&self, edit: Edit, actor: &str) -> Result<Vec<Change>, Error> {
        for _ in 0..MOST_TRIES {
            match self.try_edit(&edit, actor).await {
                Err(Error::Moved(_)) => {}
                done => return done,
            }
        }
        Err(Error::Moved(format!("{} {}", edit.kind.name, edit.name)))
    }

    async fn try_edit(&self, edit: &Edit, actor: &str) -> Result<Vec<Change>, Error> {
        let (kind, name) = (edit.kind, edit.name.clone());
        let there = self
            .store
            .read(move |tx: &mut dyn Transaction| cells(tx, kind, &name))
            .await?;
        let premise = Premise {
            kind,
            name: edit.name.clone(),
            there: there.clone(),
        };
        let cells = merged(edit, there)?;
        let mut text = Zeroizing::new(String::new());
        export::toml_row(&mut text, kind, &cells);
        if let Some(pin) = &edit.pin {
            text.push_str("pin = ");
            let secret = Cell::Secret(SecretText(Zeroizing::new(pin.expose().to_owned())));
            cell::toml(&mut text, Shape::Secret, &secret);
            text.push('\n');
        }
        let source = Source {
            name: "command line".to_owned(),
            text,
        };
        let told = watch::Sender::new(Progress::begin());
        let how = (Mode::Write, Rest::Stays);
        let terms = Terms {
            premise: Some(premise),
            ..Terms::default()
        };
        self.apply_if(&[source], how, actor, terms, &told).await
    }
}

/// Each failed try is somebody else's change that stands.
const MOST_TRIES: usize = 16;

/// What an edit was made from. PINs are no part of it: one that is given replaces whatever there is.
#[derive(Debug)]
pub(super) struct Premise {
    pub(super) kind: &'static Kind,
    pub(super) name: String,
    pub(super) there: Option<Vec<Cell>>,
}

impl Premise {
    /// Whether the record is still so.
    pub(super) fn holds(&self, tx: &mut dyn Transaction) -> Result<bool, store::Error> {
        Ok(cells(tx, self.kind, &self.name)? == self.there)
    }
}

/// What is there of the record.
fn cells(
    tx: &mut dyn Transaction,
    kind: &Kind,
    name: &str,
) -> Result<Option<Vec<Cell>>, store::Error> {
    let mut found = None;
    for_every_kind!(cells_of(tx, kind, name, &mut found));
    Ok(found)
}

fn cells_of<T: Item>(
    tx: &mut dyn Transaction,
    kind: &Kind,
    name: &str,
    found: &mut Option<Vec<Cell>>,
) -> Result<(), store::Error> {
    if T::KIND == kind {
        *found = T::among(tx, &[kind.key(name)])?.first().map(Item::cells);
    }
    Ok(())
}

/// What the record will be, in the order of the columns.
fn merged(edit: &Edit, there: Option<Vec<Cell>>) -> Result<Vec<Cell>, Error> {
    let kind = edit.kind;
    let record = format!("{} {}", kind.name, edit.name);
    match (edit.how, &there) {
        (How::Add, Some(_)) => return Err(Error::There(record)),
        (How::Set, None) => return Err(Error::NotThere(record)),
        (How::Add, None) | (How::Set, Some(_)) => {}
    }
    if let Some(unknown) = edit.columns.keys().find(|c| kind.position(c).is_none()) {
        return Err(Error::Column {
            column: unknown.clone(),
            reason: format!("a {} has no such column", kind.name),
        });
    }
    let mut there = there.map(Vec::into_iter);
    let mut cells = Vec::with_capacity(kind.columns.len());
    for (place, column) in kind.columns.iter().enumerate() {
        let old = there.as_mut().and_then(Iterator::next);
        let refused = |reason: String| Error::Column {
            column: column.name.to_owned(),
            reason,
        };
        let given = edit.columns.get(column.name).map(String::as_str);
        // The first column is the name; what is there keeps the case it was written in.
        let given = given.or_else(|| (place == 0).then_some(edit.name.as_str()));
        cells.push(match (given, old, column.default) {
            (_, Some(old), _) if place == 0 => old,
            (Some(text), _, _) => read_csv(column.shape, text).map_err(refused)?,
            (None, Some(old), _) => old,
            (None, None, Some(default)) => read_csv(column.shape, default).map_err(refused)?,
            (None, None, None) => return Err(refused("it must be given".to_owned())),
        });
    }
    Ok(cells)
}
