package testenv

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"unsafe"
)

// Locks returns the mutexes in all that v, a pointer, leads to, by the way to them: "srv.gates.Load.mu". It looks into the
// module's own types only.
func Locks(name string, v any) map[string]sync.Locker {
	w := lockWalk{found: map[string]sync.Locker{}, seen: map[unsafe.Pointer]bool{}}
	w.walk(name, reflect.ValueOf(v))
	return w.found
}

type lockWalk struct {
	found map[string]sync.Locker
	seen  map[unsafe.Pointer]bool
}

func (w *lockWalk) walk(way string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() && !w.seen[v.UnsafePointer()] {
			w.seen[v.UnsafePointer()] = true
			w.walk(way, v.Elem())
		}
	case reflect.Interface:
		w.walk(way, v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			w.walk(fmt.Sprintf("%s[%d]", way, i), v.Index(i))
		}
	case reflect.Struct:
		w.fields(way, v)
	}
}

func (w *lockWalk) fields(way string, v reflect.Value) {
	if v.CanAddr() {
		switch lock := reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Interface().(type) {
		case *sync.Mutex:
			w.found[way] = lock
			return
		case *sync.RWMutex:
			w.found[way] = lock
			return
		}
	}
	if !strings.HasPrefix(v.Type().PkgPath(), "postern/") && v.Type().PkgPath() != "main" {
		return
	}
	for i := range v.NumField() {
		w.walk(way+"."+v.Type().Field(i).Name, v.Field(i))
	}
}
