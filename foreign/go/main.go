// client-go against a live cluster: what controllers and tools written in Go stand on.
//
// Usage: foreign KUBECONFIG. Every check says its name before it runs; the first that fails ends
// the program. Waits poll a condition with a bound.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	toolswatch "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/retry"
)

const (
	space = "client-go"
	bound = 90 * time.Second
)

var (
	ctx     = context.Background()
	config  *rest.Config
	objects *kubernetes.Clientset
	maps    = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func got[T any](value T, err error) T {
	must(err)
	return value
}

func check(holds bool, format string, about ...any) {
	if !holds {
		panic(fmt.Sprintf(format, about...))
	}
}

func until(what string, question func() bool) {
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, bound, true,
		func(context.Context) (bool, error) { return question(), nil })
	check(err == nil, "never happened: %s", what)
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"go": "yes"}},
		Data:       map[string]string{"key": value},
	}
}

func main() {
	config = got(clientcmd.BuildConfigFromFlags("", os.Args[1]))
	config.QPS, config.Burst = 500, 1000
	// As the reference's own components speak.
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	objects = got(kubernetes.NewForConfig(config))
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"typed", typed}, {"discovery", discovered}, {"informers", informed},
		{"dynamic informers", dynamically}, {"metadata informers", metadataOnly},
		{"server-side apply", applied}, {"pages", paged}, {"retry watcher", retried},
		{"leader election", elected}, {"pods", podsRun}, {"exec", executed},
		{"port-forward", forwarded}, {"scale", scaled}, {"eviction", evicted}, {"the end", gone},
	} {
		fmt.Println(step.name)
		step.run()
	}
	fmt.Println("all good")
}

func typed() {
	got(objects.CoreV1().Namespaces().Create(ctx,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}}, metav1.CreateOptions{}))
	until("the account", func() bool {
		_, err := objects.CoreV1().ServiceAccounts(space).Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	api := objects.CoreV1().ConfigMaps(space)
	made := got(api.Create(ctx, configMap("typed", "1"), metav1.CreateOptions{}))
	_, err := api.Create(ctx, configMap("typed", "1"), metav1.CreateOptions{})
	check(errors.IsAlreadyExists(err), "%v", err)
	made.Data["key"] = "2"
	got(api.Update(ctx, made, metav1.UpdateOptions{}))
	_, err = api.Update(ctx, made, metav1.UpdateOptions{})
	check(errors.IsConflict(err), "%v", err)
	must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now := got(api.Get(ctx, "typed", metav1.GetOptions{}))
		now.Data["key"] = "3"
		_, err := api.Update(ctx, now, metav1.UpdateOptions{})
		return err
	}))
	patch := []byte(`{"data":{"key":null,"other":"4"}}`)
	now := got(api.Patch(ctx, "typed", types.StrategicMergePatchType, patch, metav1.PatchOptions{}))
	check(len(now.Data) == 1 && now.Data["other"] == "4", "%v", now.Data)
	_, err = api.Get(ctx, "nobody", metav1.GetOptions{})
	check(errors.IsNotFound(err), "%v", err)
	_, err = api.Create(ctx, configMap("A_", ""), metav1.CreateOptions{})
	check(errors.IsInvalid(err), "%v", err)
	uid := types.UID("other")
	err = api.Delete(ctx, "typed", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	check(errors.IsConflict(err), "%v", err)
	must(api.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "go=yes"}))
}

func discovered() {
	client := objects.Discovery()
	version := got(client.ServerVersion())
	check(version.Major == "1", "%v", version)
	_, all, err := client.ServerGroupsAndResources()
	must(err)
	check(len(all) > 15, "%d groups", len(all))
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client))
	found := got(mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Deployment"}))
	check(found.Resource.Resource == "deployments", "%v", found.Resource)
	got(client.OpenAPISchema())
	paths := got(client.OpenAPIV3().Paths())
	got(paths["apis/apps/v1"].Schema("application/json"))
}

// An informer sees what is made, changed and deleted, in order, from a list and from a stream.
func informed() {
	factory := informers.NewSharedInformerFactoryWithOptions(objects, 0, informers.WithNamespace(space))
	informer := factory.Core().V1().ConfigMaps()
	var added, updated, deleted atomic.Int32
	got(informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		// The namespace has a map of its own, which may come at any time.
		AddFunc: func(made any) {
			if strings.HasPrefix(made.(*corev1.ConfigMap).Name, "informed-") {
				added.Add(1)
			}
		},
		UpdateFunc: func(before, after any) {
			now := after.(*corev1.ConfigMap)
			if before.(*corev1.ConfigMap).ResourceVersion != now.ResourceVersion && strings.HasPrefix(now.Name, "informed-") {
				updated.Add(1)
			}
		},
		DeleteFunc: func(any) { deleted.Add(1) },
	}))
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	for kind, synced := range factory.WaitForCacheSync(stop) {
		check(synced, "%v", kind)
	}
	api := objects.CoreV1().ConfigMaps(space)
	for number := range 50 {
		name := fmt.Sprintf("informed-%d", number)
		made := got(api.Create(ctx, configMap(name, "1"), metav1.CreateOptions{}))
		made.Data["key"] = "2"
		got(api.Update(ctx, made, metav1.UpdateOptions{}))
		must(api.Delete(ctx, name, metav1.DeleteOptions{}))
	}
	until("all is seen", func() bool { return deleted.Load() == 50 })
	check(added.Load() == 50 && updated.Load() == 50, "%d %d", added.Load(), updated.Load())
	until("the store is empty again", func() bool {
		_, err := informer.Lister().ConfigMaps(space).Get("informed-49")
		return errors.IsNotFound(err)
	})
}

func dynamically() {
	client := got(dynamic.NewForConfig(config))
	definitions := client.Resource(schema.GroupVersionResource{
		Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	definition := parse(`{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": {"name": "boats.go.example.com"}, "spec": {"group": "go.example.com",
		"scope": "Namespaced", "names": {"plural": "boats", "kind": "Boat"}, "versions": [{
		"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
		"type": "object", "properties": {"spec": {"type": "object", "properties": {
		"oars": {"type": "integer", "default": 2}}}}}}}]}}`)
	got(definitions.Create(ctx, definition, metav1.CreateOptions{}))
	until("the definition is established", func() bool {
		now := got(definitions.Get(ctx, "boats.go.example.com", metav1.GetOptions{}))
		conditions, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions")
		for _, each := range conditions {
			condition := each.(map[string]any)
			if condition["type"] == "Established" && condition["status"] == "True" {
				return true
			}
		}
		return false
	})
	boats := schema.GroupVersionResource{Group: "go.example.com", Version: "v1", Resource: "boats"}
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(client, 0, space, nil)
	informer := factory.ForResource(boats)
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	check(cache.WaitForCacheSync(stop, informer.Informer().HasSynced), "it does not sync")
	boat := parse(`{"apiVersion": "go.example.com/v1", "kind": "Boat",
		"metadata": {"name": "boat"}, "spec": {}}`)
	made := got(client.Resource(boats).Namespace(space).Create(ctx, boat, metav1.CreateOptions{}))
	oars, _, _ := unstructured.NestedInt64(made.Object, "spec", "oars")
	check(oars == 2, "%v", made.Object)
	until("the boat is seen", func() bool {
		_, err := informer.Lister().ByNamespace(space).Get("boat")
		return err == nil
	})
	must(definitions.Delete(ctx, "boats.go.example.com", metav1.DeleteOptions{}))
	until("the boat is gone with its kind", func() bool {
		_, err := client.Resource(boats).Namespace(space).Get(ctx, "boat", metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
}

func parse(text string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	must(json.Unmarshal([]byte(text), &object.Object))
	return object
}

func metadataOnly() {
	client := got(metadata.NewForConfig(config))
	factory := metadatainformer.NewSharedInformerFactory(client, 0)
	informer := factory.ForResource(maps)
	stop := make(chan struct{})
	defer close(stop)
	factory.Start(stop)
	check(cache.WaitForCacheSync(stop, informer.Informer().HasSynced), "it does not sync")
	got(objects.CoreV1().ConfigMaps(space).Create(ctx, configMap("meta", "1"), metav1.CreateOptions{}))
	until("its metadata is seen", func() bool {
		found, err := informer.Lister().ByNamespace(space).Get("meta")
		return err == nil && found.(*metav1.PartialObjectMetadata).UID != ""
	})
}

func applied() {
	api := objects.CoreV1().ConfigMaps(space)
	of := func(value string) *corev1apply.ConfigMapApplyConfiguration {
		return corev1apply.ConfigMap("applied", space).WithData(map[string]string{"key": value})
	}
	got(api.Apply(ctx, of("1"), metav1.ApplyOptions{FieldManager: "one"}))
	_, err := api.Apply(ctx, of("2"), metav1.ApplyOptions{FieldManager: "two"})
	check(errors.IsConflict(err) && strings.Contains(err.Error(), `conflict with "one": .data.key`), "%v", err)
	now := got(api.Apply(ctx, of("2"), metav1.ApplyOptions{FieldManager: "two", Force: true}))
	check(now.Data["key"] == "2", "%v", now.Data)
	extracted := got(corev1apply.ExtractConfigMap(now, "two"))
	check(extracted.Data["key"] == "2", "%v", extracted.Data)
	nothing := got(corev1apply.ExtractConfigMap(now, "one"))
	check(len(nothing.Data) == 0, "%v", nothing.Data)
}

func paged() {
	api := objects.CoreV1().ConfigMaps(space)
	for number := range 25 {
		object := configMap(fmt.Sprintf("page-%02d", number), "")
		object.Labels["page"] = "yes"
		got(api.Create(ctx, object, metav1.CreateOptions{}))
	}
	pages := pager.New(pager.SimplePageFunc(func(options metav1.ListOptions) (r runtimeObject, err error) {
		return api.List(ctx, options)
	}))
	pages.PageSize = 4
	names := []string{}
	must(pages.EachListItem(ctx, metav1.ListOptions{LabelSelector: "page=yes"}, func(each runtimeObject) error {
		names = append(names, each.(*corev1.ConfigMap).Name)
		return nil
	}))
	check(len(names) == 25 && names[24] == "page-24", "%v", names)
}

func retried() {
	api := objects.CoreV1().ConfigMaps(space)
	start := got(api.List(ctx, metav1.ListOptions{})).ResourceVersion
	watcher := got(toolswatch.NewRetryWatcherWithContext(ctx, start, cache.NewListWatchFromClient(
		objects.CoreV1().RESTClient(), "configmaps", space, nothingSelected)))
	defer watcher.Stop()
	got(api.Create(ctx, configMap("watched", "1"), metav1.CreateOptions{}))
	event := <-watcher.ResultChan()
	check(event.Type == "ADDED", "%v", event)
	reached, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	got(toolswatch.UntilWithSync(reached, cache.NewListWatchFromClient(
		objects.CoreV1().RESTClient(), "configmaps", space, nothingSelected),
		&corev1.ConfigMap{}, nil, func(event watchEvent) (bool, error) {
			return event.Object.(*corev1.ConfigMap).Name == "watched", nil
		}))
}

// Two want to lead; when the first lets go, the second does.
func elected() {
	leading := make(chan string, 4)
	stand := func(name string) context.CancelFunc {
		mine, cancel := context.WithCancel(ctx)
		go leaderelection.RunOrDie(mine, leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Name: "leader", Namespace: space},
				Client:     objects.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: name},
			},
			LeaseDuration: 30 * time.Second, RenewDeadline: 20 * time.Second,
			RetryPeriod: time.Second, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leading <- name },
				OnStoppedLeading: func() {},
			},
		})
		return cancel
	}
	next := func() string {
		select {
		case name := <-leading:
			return name
		case <-time.After(bound):
			panic("nobody leads")
		}
	}
	first := stand("first")
	check(next() == "first", "another leads")
	second := stand("second")
	first()
	check(next() == "second", "another leads")
	second()
}

func podsRun() {
	zero, one := int64(1), int32(1)
	labels := map[string]string{"app": "web"}
	got(objects.AppsV1().Deployments(space).Create(ctx, &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: appsv1.DeploymentSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &zero, Containers: []corev1.Container{{
					Name: "web", Image: "busybox:test",
					Command: []string{"sh", "-c", "echo started; mkdir /www; echo hello >/www/index.html;" +
						" exec httpd -f -p 8080 -h /www"},
					Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
						corev1.ResourceCPU: resource.MustParse("10m")}},
					ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
						HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080)}}},
				}}}}}}, metav1.CreateOptions{}))
	until("it is ready", func() bool {
		now := got(objects.AppsV1().Deployments(space).Get(ctx, "web", metav1.GetOptions{}))
		return now.Status.ReadyReplicas == 1
	})
	log := got(objects.CoreV1().Pods(space).GetLogs(pod(), &corev1.PodLogOptions{}).DoRaw(ctx))
	check(string(log) == "started\n", "%q", log)
}

func pod() string {
	found := got(objects.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "app=web"}))
	return found.Items[0].Name
}

// Over both protocols: WebSocket, and SPDY as older clients do.
func executed() {
	url := objects.CoreV1().RESTClient().Post().Resource("pods").Namespace(space).Name(pod()).
		SubResource("exec").VersionedParams(&corev1.PodExecOptions{
		Command: []string{"sh", "-c", "cat; echo err >&2; exit 3"},
		Stdin:   true, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	for name, executor := range map[string]remotecommand.Executor{
		"websocket": got(remotecommand.NewWebSocketExecutor(config, "GET", url.String())),
		"spdy":      got(remotecommand.NewSPDYExecutor(config, "POST", url)),
	} {
		var stdout, stderr bytes.Buffer
		err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{
			Stdin: strings.NewReader("there and back"), Stdout: &stdout, Stderr: &stderr})
		check(err != nil && strings.Contains(err.Error(), "exit code 3"), "%s: %v", name, err)
		check(stdout.String() == "there and back", "%s: %q", name, stdout.String())
		check(stderr.String() == "err\n", "%s: %q", name, stderr.String())
	}
}

func forwarded() {
	url := objects.CoreV1().RESTClient().Post().Resource("pods").Namespace(space).Name(pod()).
		SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(config)
	must(err)
	tunnel := got(portforward.NewSPDYOverWebsocketDialer(url, config))
	for name, dialer := range map[string]httpstreamDialer{
		"spdy":      spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", url),
		"websocket": tunnel,
	} {
		stop, ready := make(chan struct{}), make(chan struct{})
		forwarder := got(portforward.New(dialer, []string{"0:8080"}, stop, ready, io.Discard, os.Stderr))
		go func() { must(forwarder.ForwardPorts()) }()
		select {
		case <-ready:
		case <-time.After(bound):
			panic(name + ": never ready")
		}
		port := got(forwarder.GetPorts())[0].Local
		for range 3 {
			answer := got(http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port)))
			body := got(io.ReadAll(answer.Body))
			check(string(body) == "hello\n", "%s: %q", name, body)
		}
		close(stop)
	}
}

func scaled() {
	client := objects.Discovery()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client))
	scales := got(scale.NewForConfig(config, mapper, dynamic.LegacyAPIPathResolverFunc,
		scale.NewDiscoveryScaleKindResolver(client)))
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	now := got(scales.Scales(space).Get(ctx, deployments, "web", metav1.GetOptions{}))
	check(now.Spec.Replicas == 1 && now.Status.Selector == "app=web", "%v", now)
	now.Spec.Replicas = 2
	got(scales.Scales(space).Update(ctx, deployments, now, metav1.UpdateOptions{}))
	until("two are ready", func() bool {
		now := got(objects.AppsV1().Deployments(space).Get(ctx, "web", metav1.GetOptions{}))
		return now.Status.ReadyReplicas == 2
	})
	one := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: space},
		Spec: autoscalingv1.ScaleSpec{Replicas: 1}}
	got(objects.AppsV1().Deployments(space).UpdateScale(ctx, "web", one, metav1.UpdateOptions{}))
	until("one is left", func() bool {
		found := got(objects.CoreV1().Pods(space).List(ctx, metav1.ListOptions{LabelSelector: "app=web"}))
		return len(found.Items) == 1
	})
}

func evicted() {
	least := intstr.FromInt32(1)
	got(objects.PolicyV1().PodDisruptionBudgets(space).Create(ctx, &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &least,
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}},
	}, metav1.CreateOptions{}))
	until("the budget is counted", func() bool {
		now := got(objects.PolicyV1().PodDisruptionBudgets(space).Get(ctx, "web", metav1.GetOptions{}))
		return now.Status.CurrentHealthy == 1
	})
	err := objects.PolicyV1().Evictions(space).Evict(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Name: pod(), Namespace: space}})
	check(errors.IsTooManyRequests(err) && errors.HasStatusCause(err, policyv1.DisruptionBudgetCause), "%v", err)
}

func gone() {
	must(objects.CoreV1().Namespaces().Delete(ctx, space, metav1.DeleteOptions{}))
	until("the namespace is gone", func() bool {
		_, err := objects.CoreV1().Namespaces().Get(ctx, space, metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
}
