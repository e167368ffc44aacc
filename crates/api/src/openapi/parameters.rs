//! Parameters of requests, in the form of Swagger 2.0, in the order of their names.

use serde_json::{Value, json};

use crate::row::Subresource;

fn query(name: &str, ty: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "query", "type": ty, "uniqueItems": true, "description": description,
    })
}

/// A segment of the path.
pub(super) fn segment(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "type": "string", "required": true, "uniqueItems": true,
        "description": description,
    })
}

/// A body of a type.
pub(super) fn body(type_name: &str, required: bool) -> Value {
    let mut body = json!({
        "name": "body", "in": "body",
        "schema": {"$ref": format!("#/definitions/{type_name}")},
    });
    if required {
        body["required"] = true.into();
    }
    body
}

/// `pretty`, which every path takes.
pub(super) fn pretty() -> Value {
    query(
        "pretty",
        "string",
        "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
    )
}

fn dry_run() -> Value {
    query(
        "dryRun",
        "string",
        "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed",
    )
}

fn field_manager(apply: bool) -> Value {
    let mut text = "fieldManager is a name associated with the actor or entity that is making these changes. The value must be less than or 128 characters long, and only contain printable characters, as defined by https://golang.org/pkg/unicode/#IsPrint.".to_owned();
    if apply {
        text.push_str(" This field is required for apply requests (application/apply-patch) but optional for non-apply patch types (JsonPatch, MergePatch, StrategicMergePatch).");
    }
    query("fieldManager", "string", &text)
}

fn field_validation() -> Value {
    query(
        "fieldValidation",
        "string",
        "fieldValidation instructs the server on how to handle objects in the request (POST/PUT/PATCH) containing unknown or duplicate fields. Valid values are: - Ignore: This will ignore any unknown fields that are silently dropped from the object, and will ignore all but the last duplicate field that the decoder encounters. - Warn: This will send a warning via the standard warning response header for each unknown field that is dropped from the object, and for each duplicate field that is encountered. The request will still succeed if there are no other errors, and will only persist the last of any duplicate fields. This is the default. - Strict: This will fail the request with a BadRequest error if any unknown fields would be dropped from the object, or if any duplicate fields are present. The error returned from the server will contain all unknown and duplicate fields encountered.",
    )
}

/// Moves what all methods of a path take to the path, and puts all in order. Bodies stay with their
/// methods: in OpenAPI 3.0 they are no parameters.
pub(super) fn share(item: &mut Value) {
    let Value::Object(item) = item else { return };
    let mut shared = match item.remove("parameters") {
        Some(Value::Array(shared)) => shared,
        _ => Vec::new(),
    };
    let lists = item.values().map(|method| match &method["parameters"] {
        Value::Array(own) => own.as_slice(),
        _ => &[],
    });
    let lists: Vec<&[Value]> = lists.collect();
    let common: Vec<Value> = match lists.split_first() {
        Some((first, others)) => first
            .iter()
            .filter(|it| it["in"] != "body" && others.iter().all(|other| other.contains(it)))
            .cloned()
            .collect(),
        None => Vec::new(),
    };
    for method in item.values_mut().filter_map(Value::as_object_mut) {
        if let Some(Value::Array(own)) = method.get_mut("parameters") {
            own.retain(|parameter| !common.contains(parameter));
            order(own);
            if own.is_empty() {
                method.remove("parameters");
            }
        }
    }
    shared.extend(common);
    order(&mut shared);
    item.insert("parameters".to_owned(), shared.into());
}

fn order(parameters: &mut [Value]) {
    let key = |of: &Value, part: &str| of[part].as_str().unwrap_or_default().to_owned();
    parameters.sort_by_key(|it| (key(it, "name"), key(it, "in")));
}

/// Parameters of create and replace.
pub(super) fn write() -> Vec<Value> {
    vec![dry_run(), field_manager(false), field_validation()]
}

/// Parameters of patch.
pub(super) fn patch() -> Vec<Value> {
    let force = query(
        "force",
        "boolean",
        "Force is going to \"force\" Apply requests. It means user will re-acquire conflicting fields owned by other people. Force flag must be unset for non-apply patch requests.",
    );
    vec![dry_run(), field_manager(true), field_validation(), force]
}

/// Parameters of delete and deletecollection.
pub(super) fn delete() -> Vec<Value> {
    vec![
        dry_run(),
        query(
            "ignoreStoreReadErrorWithClusterBreakingPotential",
            "boolean",
            "Asks for the unsafe deletion of an object that can't be read any more. It is for objects that the store has lost the key of.",
        ),
        query(
            "gracePeriodSeconds",
            "integer",
            "The duration in seconds before the object should be deleted. Value must be non-negative integer. The value zero indicates delete immediately. If this value is nil, the default grace period for the specified type will be used. Defaults to a per object value if not specified. zero means delete immediately.",
        ),
        query(
            "orphanDependents",
            "boolean",
            "Deprecated: please use the PropagationPolicy, this field will be deprecated in 1.7. Should the dependent objects be orphaned. If true/false, the \"orphan\" finalizer will be added to/removed from the object's finalizers list. Either this field or PropagationPolicy may be set, but not both.",
        ),
        query(
            "propagationPolicy",
            "string",
            "Whether and how garbage collection will be performed. Either this field or OrphanDependents may be set, but not both. The default policy is decided by the existing finalizer set in the metadata.finalizers and the resource-specific default policy. Acceptable values are: 'Orphan' - orphan the dependents; 'Background' - allow the garbage collector to delete the dependents in the background; 'Foreground' - a cascading policy that deletes all dependents in the foreground.",
        ),
    ]
}

/// Parameters of list; `watch` adds those that only watches know.
pub(super) fn list(watch: bool) -> Vec<Value> {
    let mut all = select();
    if !watch {
        return all;
    }
    all.push(query(
        "allowWatchBookmarks",
        "boolean",
        "allowWatchBookmarks requests watch events with type \"BOOKMARK\". Clients should not assume bookmarks are returned at any specific interval, nor may they assume the server will send any BOOKMARK event during a session. If this is not a watch, this field is ignored.",
    ));
    all.push(query(
        "watch",
        "boolean",
        "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications. Specify resourceVersion.",
    ));
    all
}

/// Parameters that say which objects are meant.
pub(super) fn select() -> Vec<Value> {
    let version_of = "See https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions for details.\n\nDefaults to unset";
    vec![
        query(
            "continue",
            "string",
            "The continue option should be set when retrieving more results from the server. Since this value is server defined, clients may only use the continue value from a previous query result with identical query parameters (except for the value of continue) and the server may reject a continue value it does not recognize. If the specified continue value is no longer valid whether due to expiration (generally five to fifteen minutes) or a configuration change on the server, the server will respond with a 410 ResourceExpired error. This field is not supported when watch is true.",
        ),
        query(
            "fieldSelector",
            "string",
            "A selector to restrict the list of returned objects by their fields. Defaults to everything.",
        ),
        query(
            "labelSelector",
            "string",
            "A selector to restrict the list of returned objects by their labels. Defaults to everything.",
        ),
        query(
            "limit",
            "integer",
            "limit is a maximum number of responses to return for a list call. If more items exist, the server will set the `continue` field on the list metadata to a value that can be used with the same initial query to retrieve the next set of results. Setting a limit may return fewer than the requested amount of items (up to zero items) in the event all requested objects are filtered out and clients should only use the presence of the continue field to determine whether more results are available.",
        ),
        query(
            "resourceVersion",
            "string",
            &format!(
                "resourceVersion sets a constraint on what resource versions a request may be served from. {version_of}"
            ),
        ),
        query(
            "resourceVersionMatch",
            "string",
            &format!(
                "resourceVersionMatch determines how resourceVersion is applied to list calls. It is highly recommended that resourceVersionMatch be set for list calls where resourceVersion is set. {version_of}"
            ),
        ),
        query(
            "sendInitialEvents",
            "boolean",
            "`sendInitialEvents=true` may be set together with `watch=true`. In that case, the watch stream will begin with synthetic events to produce the current state of objects in the collection. Once all such events have been sent, a synthetic \"Bookmark\" event will be sent, marked with the `\"k8s.io/initial-events-end\": \"true\"` annotation.",
        ),
        query(
            "shardSelector",
            "string",
            "shardSelector restricts the list of returned objects to those whose hash of a field is in one of the ranges that it names, as `shardRange(object.metadata.uid, '0x0', '0x8000000000000000')`. It has no effect while the feature is off.",
        ),
        query(
            "timeoutSeconds",
            "integer",
            "Timeout for the list/watch call. This limits the duration of the call, regardless of any activity or inactivity.",
        ),
    ]
}

/// What a subresource takes beyond `pretty`.
pub(super) fn subresource(sub: Subresource) -> Vec<Value> {
    let container = || {
        query(
            "container",
            "string",
            "The container to which the request goes. Defaults to only container if there is one container in the pod.",
        )
    };
    let streams = |verb: &str| {
        ["stdin", "stdout", "stderr"]
            .map(|stream| {
                query(
                    stream,
                    "boolean",
                    &format!("Redirect the {stream} stream of the pod for this {verb} call."),
                )
            })
            .to_vec()
    };
    let tty = || {
        query(
            "tty",
            "boolean",
            "TTY if true indicates that a tty will be allocated.",
        )
    };
    match sub {
        Subresource::Log => vec![
            container(),
            query(
                "follow",
                "boolean",
                "Follow the log stream of the pod. Defaults to false.",
            ),
            query(
                "insecureSkipTLSVerifyBackend",
                "boolean",
                "insecureSkipTLSVerifyBackend indicates that the apiserver should not confirm the validity of the serving certificate of the backend it is connecting to.",
            ),
            query(
                "limitBytes",
                "integer",
                "If set, the number of bytes to read from the server before terminating the log output.",
            ),
            query(
                "previous",
                "boolean",
                "Return previous terminated container logs. Defaults to false.",
            ),
            query(
                "sinceSeconds",
                "integer",
                "A relative time in seconds before the current time from which to show logs. Only one of sinceSeconds or sinceTime may be specified.",
            ),
            query(
                "stream",
                "string",
                "Which stream of the container to return: \"All\", \"Stdout\" or \"Stderr\".",
            ),
            query(
                "tailLines",
                "integer",
                "If set, the number of lines from the end of the logs to show. If not specified, logs are shown from the creation of the container or sinceSeconds or sinceTime.",
            ),
            query(
                "timestamps",
                "boolean",
                "If true, add an RFC3339 or RFC3339Nano timestamp at the beginning of every line of log output. Defaults to false.",
            ),
        ],
        Subresource::Exec => {
            let mut all = vec![
                query(
                    "command",
                    "string",
                    "Command is the remote command to execute. argv array. Not executed within a shell.",
                ),
                container(),
            ];
            all.extend(streams("exec"));
            all.push(tty());
            all
        }
        Subresource::Attach => {
            let mut all = vec![container()];
            all.extend(streams("attach"));
            all.push(tty());
            all
        }
        Subresource::PortForward => {
            vec![query(
                "ports",
                "integer",
                "List of ports to forward. Required when using WebSockets.",
            )]
        }
        Subresource::Proxy => vec![query(
            "path",
            "string",
            "Path is the part of URLs that includes the path to use for the current proxy request.",
        )],
        _ => Vec::new(),
    }
}
