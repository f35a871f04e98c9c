//! Tables of DynamoDB with a text as their only key, and items with conditional writes.
//!
//! Conditions are those that a lease needs: `attribute_exists(NAME)`, `attribute_not_exists(NAME)` and `NAME = :VALUE`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::validation;
use crate::aws::{AwsApiError, AwsApiResult, Cloud};
use ecs_mesh_model::Timestamp;

/// An item: attributes by name, in DynamoDB's JSON.
pub type StoredItem = Map<String, Value>;

/// A table.
#[derive(Clone, Debug)]
pub struct ItemTable {
    /// Its name.
    pub name: String,
    /// Its ARN.
    pub arn: String,
    /// The name of its partition key, a text.
    pub key: String,
    /// When it was created.
    pub created: Timestamp,
    /// Its items by key.
    pub items: BTreeMap<String, StoredItem>,
}

/// The condition of a write, with its placeholders.
#[derive(Clone, Debug, Default)]
pub struct ItemCondition {
    /// The expression; without one every write succeeds.
    pub expression: Option<String>,
    /// `ExpressionAttributeNames`.
    pub names: StoredItem,
    /// `ExpressionAttributeValues`.
    pub values: StoredItem,
}

impl ItemCondition {
    /// Whether it holds of the item with the same key.
    fn holds(&self, item: Option<&StoredItem>) -> AwsApiResult<bool> {
        let Some(expression) = self.expression.as_deref().map(str::trim) else { return Ok(true) };
        let attribute = |name: &str| -> AwsApiResult<Option<&Value>> {
            let name = self.attribute(name.trim())?;
            Ok(item.and_then(|item| item.get(name)))
        };
        let argument =
            |function: &str| expression.strip_prefix(function)?.trim().strip_prefix('(')?.strip_suffix(')');
        if let Some(name) = argument("attribute_not_exists") {
            return Ok(attribute(name)?.is_none());
        }
        if let Some(name) = argument("attribute_exists") {
            return Ok(attribute(name)?.is_some());
        }
        let Some((name, value)) = expression.split_once('=') else {
            return Err(validation(format!(
                "Invalid ConditionExpression: {expression:?} is not served by the sandbox"
            )));
        };
        let Some(value) = self.values.get(value.trim()) else {
            let placeholder = value.trim();
            return Err(validation(format!(
                "Invalid ConditionExpression: An expression attribute value used in expression is not defined; \
                 attribute value: {placeholder}"
            )));
        };
        Ok(attribute(name)?.is_some_and(|found| found == value))
    }

    /// The attribute of a name or placeholder.
    fn attribute<'a>(&'a self, name: &'a str) -> AwsApiResult<&'a str> {
        if !name.starts_with('#') {
            return Ok(name);
        }
        self.names.get(name).and_then(Value::as_str).ok_or_else(|| {
            validation(format!(
                "Invalid ConditionExpression: An expression attribute name used in the document path is not defined; \
                 attribute name: {name}"
            ))
        })
    }
}

impl ItemTable {
    /// The key of `Key`, which has no other attribute.
    fn key_of(&self, key: &StoredItem) -> AwsApiResult<String> {
        let text = key.get(&self.key).and_then(|value| value["S"].as_str());
        text.filter(|text| key.len() == 1 && !text.is_empty())
            .map(str::to_owned)
            .ok_or_else(|| validation("The provided key element does not match the schema"))
    }

    fn key_in(&self, item: &StoredItem) -> AwsApiResult<String> {
        let key = &self.key;
        let problem = match item.get(key) {
            None => format!("Missing the key {key} in the item"),
            Some(value) => match value["S"].as_str() {
                Some("") => format!(
                    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an \
                     empty string value. Key: {key}"
                ),
                Some(text) => return Ok(text.to_owned()),
                None => {
                    let actual = value.as_object().and_then(|value| value.keys().next());
                    let actual = actual.map_or("", String::as_str);
                    format!("Type mismatch for key {key} expected: S actual: {actual}")
                }
            },
        };
        Err(validation(format!("One or more parameter values were invalid: {problem}")))
    }

    fn check(&self, condition: &ItemCondition, key: &str) -> AwsApiResult<()> {
        if condition.holds(self.items.get(key))? {
            return Ok(());
        }
        Err(AwsApiError::new("ConditionalCheckFailedException", "The conditional request failed"))
    }
}

impl Cloud {
    /// Creates a table. It is active at once.
    pub fn create_table(&mut self, name: &str, key: &str, now: Timestamp) -> AwsApiResult<&ItemTable> {
        let allowed = (3..=255).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !allowed {
            return Err(validation(format!("{name:?} is not a valid name of a table")));
        }
        if self.tables.contains_key(name) {
            let message = format!("Table already exists: {name}");
            return Err(AwsApiError::new("ResourceInUseException", message));
        }
        let arn = self.arn("dynamodb", &format!("table/{name}"));
        let (name, key) = (name.to_owned(), key.to_owned());
        let table = ItemTable { name: name.clone(), arn, key, created: now, items: BTreeMap::new() };
        Ok(self.tables.entry(name).or_insert(table))
    }

    /// The table.
    pub fn describe_table(&self, name: &str) -> AwsApiResult<&ItemTable> {
        self.tables.get(name).ok_or_else(|| no_table(&format!(": Table: {name} not found")))
    }

    /// Deletes a table with its items, and returns it.
    pub fn delete_table(&mut self, name: &str) -> AwsApiResult<ItemTable> {
        self.tables.remove(name).ok_or_else(|| no_table(&format!(": Table: {name} not found")))
    }

    /// The item of a key.
    pub fn get_item(&self, table: &str, key: &StoredItem) -> AwsApiResult<Option<&StoredItem>> {
        let table = self.tables.get(table).ok_or_else(|| no_table(""))?;
        Ok(table.items.get(&table.key_of(key)?))
    }

    /// Replaces an item, and returns the one before.
    pub fn put_item(
        &mut self,
        table: &str,
        item: StoredItem,
        condition: &ItemCondition,
    ) -> AwsApiResult<Option<StoredItem>> {
        let table = self.tables.get_mut(table).ok_or_else(|| no_table(""))?;
        let key = table.key_in(&item)?;
        table.check(condition, &key)?;
        Ok(table.items.insert(key, item))
    }

    /// Deletes an item, and returns it.
    pub fn delete_item(
        &mut self,
        table: &str,
        key: &StoredItem,
        condition: &ItemCondition,
    ) -> AwsApiResult<Option<StoredItem>> {
        let table = self.tables.get_mut(table).ok_or_else(|| no_table(""))?;
        let key = table.key_of(key)?;
        table.check(condition, &key)?;
        Ok(table.items.remove(&key))
    }
}

fn no_table(which: &str) -> AwsApiError {
    AwsApiError::new("ResourceNotFoundException", format!("Requested resource not found{which}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::aws::CloudConfig;

    fn object(value: &Value) -> StoredItem {
        value.as_object().unwrap().clone()
    }

    fn condition(expression: &str, names: &Value, values: &Value) -> ItemCondition {
        ItemCondition {
            expression: Some(expression.to_owned()),
            names: object(names),
            values: object(values),
        }
    }

    #[test]
    fn put_holds_to_its_condition() {
        let mut cloud = Cloud::new(CloudConfig::default(), Timestamp(0));
        cloud.create_table("leases", "operatorId", Timestamp(0)).unwrap();
        let item =
            |version: u64| object(&json!({"operatorId": {"S": "op"}, "version": {"N": version.to_string()}}));
        let missing = condition("attribute_not_exists(#a)", &json!({"#a": "operatorId"}), &json!({}));
        let equals = |version: u64| {
            let value = json!({":v": {"N": version.to_string()}});
            condition("#a = :v", &json!({"#a": "version"}), &value)
        };
        let failed = "ConditionalCheckFailedException";
        assert_eq!(cloud.put_item("leases", item(1), &equals(1)).unwrap_err().code, failed);
        cloud.put_item("leases", item(1), &missing).unwrap();
        assert_eq!(cloud.put_item("leases", item(1), &missing).unwrap_err().code, failed);
        cloud.put_item("leases", item(2), &equals(1)).unwrap();
        assert_eq!(cloud.put_item("leases", item(2), &equals(1)).unwrap_err().code, failed);
        let key = object(&json!({"operatorId": {"S": "op"}}));
        assert_eq!(cloud.get_item("leases", &key).unwrap(), Some(&item(2)));
    }

    #[test]
    fn undefined_placeholders_and_other_expressions_are_rejected() {
        let mut cloud = Cloud::new(CloudConfig::default(), Timestamp(0));
        cloud.create_table("leases", "operatorId", Timestamp(0)).unwrap();
        let item = object(&json!({"operatorId": {"S": "op"}}));
        for expression in ["#b = :v", "operatorId = :w", "size(operatorId) > :v"] {
            let condition = condition(expression, &json!({"#a": "x"}), &json!({":v": {"N": "1"}}));
            let error = cloud.put_item("leases", item.clone(), &condition).unwrap_err();
            assert_eq!(error.code, "ValidationException", "{expression}");
        }
    }
}
