package config

import (
	"reflect"
	"slices"
	"strings"
)

// Differences returns the paths at which two configurations differ, sorted, as
// captures.shop.snapshot: captures and sinks are told apart by their names. No value is in it.
func Differences(a, b *Config) []string {
	var d differences
	d.compare("", reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
	slices.Sort(d.paths)
	return d.paths
}

type differences struct{ paths []string }

func (d *differences) compare(path string, a, b reflect.Value) {
	switch {
	case reflect.DeepEqual(a.Interface(), b.Interface()):
	case a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		d.compare(path, a.Elem(), b.Elem())
	case a.Kind() == reflect.Struct && a.Type() != reflect.TypeFor[Secret]():
		for i := range a.NumField() {
			name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("yaml"), ",")
			d.compare(join(path, name), a.Field(i), b.Field(i))
		}
	case a.Kind() == reflect.Slice && named(a.Type().Elem()):
		d.compareNamed(path, a, b)
	default:
		d.paths = append(d.paths, path)
	}
}

// named says whether a list's entries have names.
func named(entry reflect.Type) bool {
	if entry.Kind() != reflect.Struct {
		return false
	}
	_, ok := entry.FieldByName("Name")
	return ok
}

// compareNamed compares two lists, whatever the order of their entries.
func (d *differences) compareNamed(path string, a, b reflect.Value) {
	was, is := byName(a), byName(b)
	for name, v := range was {
		if now, ok := is[name]; ok {
			d.compare(join(path, name), v, now)
			continue
		}
		d.paths = append(d.paths, join(path, name))
	}
	for name := range is {
		if _, ok := was[name]; !ok {
			d.paths = append(d.paths, join(path, name))
		}
	}
}

func byName(list reflect.Value) map[string]reflect.Value {
	m := make(map[string]reflect.Value, list.Len())
	for i := range list.Len() {
		m[list.Index(i).FieldByName("Name").String()] = list.Index(i)
	}
	return m
}
