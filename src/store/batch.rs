//! Many rows in few statements.

use crate::store::{
    Transaction,
    error::Error,
    value::{Row, Value},
};

/// Values of one statement. Both engines take some thousands.
const VALUES: usize = 500;

/// The rows whose `column` is one of `keys`, in no order; `select` is the statement up to its `WHERE`.
pub(super) fn among<T>(
    tx: &mut dyn Transaction,
    select: &str,
    column: &str,
    keys: &[String],
    record: impl Fn(Row) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    for keys in keys.chunks(VALUES) {
        let marks: Vec<_> = (1..=keys.len()).map(|n| format!("${n}")).collect();
        let sql = format!("{select} WHERE {column} IN ({})", marks.join(", "));
        let args: Vec<Value> = keys.iter().map(Value::from).collect();
        for row in tx.query(&sql, &args)? {
            found.push(record(row)?);
        }
    }
    Ok(found)
}
