package main

import (
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/watch"
)

// Short names for what stands in signatures.
type (
	runtimeObject    = runtime.Object
	watchEvent       = watch.Event
	httpstreamDialer = httpstream.Dialer
)

var nothingSelected = fields.Everything()
