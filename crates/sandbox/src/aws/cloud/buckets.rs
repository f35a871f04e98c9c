//! S3: buckets with objects and their versions. Permissions are not emulated, but an object can be denied.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cloud, md5_hex};
use crate::aws::{AwsApiError, AwsApiResult};
use ecs_mesh_model::Timestamp;

/// A bucket.
#[derive(Debug, Default)]
pub(super) struct S3Bucket {
    region: String,
    /// The versions of each object, oldest first.
    objects: BTreeMap<String, Vec<S3Object>>,
    denied: BTreeSet<String>,
}

/// A version of an object.
#[derive(Clone, Debug)]
pub struct S3Object {
    /// The content.
    pub body: Vec<u8>,
    /// The entity tag, quotes included.
    pub etag: String,
    /// The id of the version.
    pub version: String,
    /// The time of the write.
    pub changed: Timestamp,
}

/// A page of the objects of a bucket.
#[derive(Clone, Debug, Default)]
pub struct BucketPage {
    /// Keys with the current versions.
    pub objects: Vec<(String, S3Object)>,
    /// The token of the next page.
    pub next: Option<String>,
}

impl Cloud {
    /// Creates a bucket in a Region.
    pub fn create_bucket(&mut self, name: &str, region: &str) -> AwsApiResult<()> {
        if self.buckets.contains_key(name) {
            let message =
                "Your previous request to create the named bucket succeeded and you already own it.";
            return Err(AwsApiError::new("BucketAlreadyOwnedByYou", message));
        }
        let bucket = S3Bucket { region: region.to_owned(), ..S3Bucket::default() };
        self.buckets.insert(name.to_owned(), bucket);
        Ok(())
    }

    /// The Region of a bucket.
    pub fn bucket_region(&self, name: &str) -> AwsApiResult<&str> {
        self.bucket(name).map(|bucket| bucket.region.as_str())
    }

    /// Writes an object, as its next version.
    pub fn put_object(
        &mut self,
        bucket: &str,
        key: &str,
        body: &[u8],
        now: Timestamp,
    ) -> AwsApiResult<S3Object> {
        self.bucket(bucket)?;
        let object = S3Object {
            body: body.to_vec(),
            etag: format!("\"{}\"", md5_hex(body)),
            version: self.hex(32),
            changed: now,
        };
        let bucket = self.buckets.entry(bucket.to_owned()).or_default();
        bucket.objects.entry(key.to_owned()).or_default().push(object.clone());
        Ok(object)
    }

    /// Deletes an object with its versions. An object that does not exist is no error.
    pub fn delete_object(&mut self, bucket: &str, key: &str) -> AwsApiResult<()> {
        self.bucket(bucket)?;
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            bucket.objects.remove(key);
        }
        Ok(())
    }

    /// Denies reads of an object, or allows them again.
    pub fn set_object_denied(&mut self, bucket: &str, key: &str, denied: bool) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            if denied {
                bucket.denied.insert(key.to_owned());
            } else {
                bucket.denied.remove(key);
            }
        }
    }

    /// Objects whose keys start with the prefix, in the order of keys.
    pub fn list_objects(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> AwsApiResult<BucketPage> {
        let objects = self.bucket(bucket)?.objects.iter();
        let found = objects.filter(|(key, _)| key.starts_with(prefix));
        let found =
            found.filter_map(|(key, versions)| Some((key.as_str(), (key.clone(), versions.last()?.clone()))));
        let (objects, next) = super::page(found, after, limit);
        Ok(BucketPage { objects, next })
    }

    /// The current version of an object, if it has this entity tag.
    pub fn object(&self, bucket: &str, key: &str, if_match: Option<&str>) -> AwsApiResult<&S3Object> {
        let found = self.bucket(bucket)?;
        if found.denied.contains(key) {
            return Err(AwsApiError::new("AccessDenied", "Access Denied"));
        }
        let object = found.objects.get(key).and_then(|versions| versions.last());
        let object =
            object.ok_or_else(|| AwsApiError::new("NoSuchKey", "The specified key does not exist."))?;
        if if_match.is_some_and(|etag| etag != object.etag) {
            let message = "At least one of the pre-conditions you specified did not hold";
            return Err(AwsApiError::new("PreconditionFailed", message));
        }
        Ok(object)
    }

    fn bucket(&self, name: &str) -> AwsApiResult<&S3Bucket> {
        let message = "The specified bucket does not exist";
        self.buckets.get(name).ok_or_else(|| AwsApiError::new("NoSuchBucket", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::CloudConfig;

    #[test]
    fn objects_are_listed_by_prefix_and_read_by_entity_tag() {
        let (mut cloud, now) = (Cloud::new(CloudConfig::default(), Timestamp(0)), Timestamp(0));
        cloud.create_bucket("b", "eu-west-1").unwrap();
        for key in ["p/a", "p/b", "p/c", "q/a"] {
            cloud.put_object("b", key, key.as_bytes(), now).unwrap();
        }
        let first = cloud.list_objects("b", "p/", None, 2).unwrap();
        assert_eq!((first.objects.len(), first.next.as_deref()), (2, Some("p/b")));
        let second = cloud.list_objects("b", "p/", first.next.as_deref(), 2).unwrap();
        assert_eq!((second.objects[0].0.as_str(), second.next), ("p/c", None));

        let old = cloud.object("b", "p/a", None).unwrap().etag.clone();
        cloud.put_object("b", "p/a", b"new", now).unwrap();
        let code = |error: AwsApiError| error.code;
        assert_eq!(cloud.object("b", "p/a", Some(&old)).map_err(code).err(), Some("PreconditionFailed"));
        cloud.set_object_denied("b", "p/a", true);
        assert_eq!(cloud.object("b", "p/a", None).map_err(code).err(), Some("AccessDenied"));
        cloud.delete_object("b", "p/b").unwrap();
        assert_eq!(cloud.object("b", "p/b", None).map_err(code).err(), Some("NoSuchKey"));
        assert_eq!(cloud.list_objects("none", "", None, 9).map_err(code).err(), Some("NoSuchBucket"));
    }
}
