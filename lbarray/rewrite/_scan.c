/* From anywhere in HTML's markup to the next tag of interest: what lbarray/rewrite/tokens.py has as a regular expression,
 * where the grammar is explained. Only what is in the limited API of CPython 3.11 is used. Nothing is kept between two
 * calls, nothing is written but the result, and no octet at or beyond the end is read. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_NAME 24 /* of those that are looked for */
#define MOST_NAMES 64
#define CUT (-1) /* the buffer ends first */

struct names {
	uint8_t count;
	uint8_t lengths[MOST_NAMES];
	char texts[MOST_NAMES][LONGEST_NAME];
};

typedef struct {
	PyObject_HEAD
	struct names named;      /* elements to stop at */
	struct names ends;       /* elements whose end tags to stop at */
	struct names everywhere; /* attributes of any element to stop at */
	struct names simple;     /* elements whose src may be all that matters */
	struct names deciding;   /* attributes that matter there */
} Scanner;

static int is_space(uint8_t c)
{
	return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\f';
}

static int is_alpha(uint8_t c)
{
	return (uint8_t)((c | 32) - 'a') < 26;
}

static int is_called(const char *name, const uint8_t *text, Py_ssize_t length)
{
	if ((size_t)length != strlen(name))
		return 0;
	for (Py_ssize_t at = 0; at < length; at++)
		if ((text[at] | 32) != (uint8_t)name[at])
			return 0;
	return 1;
}

static int among(const struct names *names, const uint8_t *text, Py_ssize_t length)
{
	char lower[LONGEST_NAME];

	if (length < 1 || length > LONGEST_NAME)
		return 0;
	for (Py_ssize_t at = 0; at < length; at++)
		lower[at] = (char)(text[at] >= 'A' && text[at] <= 'Z' ? text[at] | 32 : text[at]);
	for (int place = 0; place < names->count; place++)
		if (names->lengths[place] == length && !memcmp(names->texts[place], lower, (size_t)length))
			return 1;
	return 0;
}

static Py_ssize_t find(const uint8_t *data, Py_ssize_t at, Py_ssize_t size, uint8_t c)
{
	const uint8_t *found = at < size ? memchr(data + at, c, (size_t)(size - at)) : NULL;

	return found ? found - data : CUT;
}

/* Behind a comment whose "<!--" ends at at. */
static Py_ssize_t comment(const uint8_t *data, Py_ssize_t at, Py_ssize_t size)
{
	if (at < size && data[at] == '>')
		return at + 1;
	if (at + 1 < size && data[at] == '-' && data[at + 1] == '>')
		return at + 2;
	while ((at = find(data, at, size, '-')) != CUT) {
		if (at + 2 >= size)
			return CUT;
		if (data[at + 1] == '-') {
			if (data[at + 2] == '>')
				return at + 3;
			if (data[at + 2] == '!' && at + 3 < size && data[at + 3] == '>')
				return at + 4;
		}
		at++;
	}
	return CUT;
}

struct attribute {
	Py_ssize_t name, name_end;
	Py_ssize_t value, value_end; /* with its quotation marks; both 0 for none */
	uint8_t quote;               /* 0 without */
	uint8_t tight;               /* name="value", nothing between */
};

/* One attribute: behind it; the place of ">" when there is none more, with name_end 0; CUT. */
static Py_ssize_t attribute(const uint8_t *data, Py_ssize_t at, Py_ssize_t size, struct attribute *found)
{
	Py_ssize_t next;

	while (at < size && (is_space(data[at]) || data[at] == '/'))
		at++;
	if (at >= size)
		return CUT;
	found->name_end = 0;
	if (data[at] == '>')
		return at;
	found->name = at;
	if (data[at] == '=')
		at++;
	while (at < size && !is_space(data[at]) && data[at] != '/' && data[at] != '>' && data[at] != '=')
		at++;
	if (at >= size)
		return CUT;
	found->name_end = at;
	found->value = found->value_end = 0;
	found->quote = 0;
	next = at;
	while (next < size && is_space(data[next]))
		next++;
	if (next >= size)
		return CUT;
	if (data[next] != '=')
		return at;
	found->tight = next == at;
	next++;
	while (next < size && is_space(data[next])) {
		found->tight = 0;
		next++;
	}
	if (next >= size)
		return CUT;
	found->value = next;
	if (data[next] == '"' || data[next] == '\'') {
		found->quote = data[next];
		next = find(data, next + 1, size, found->quote);
		if (next == CUT)
			return CUT;
		next++;
	} else {
		while (next < size && !is_space(data[next]) && data[next] != '>')
			next++;
		if (next >= size)
			return CUT;
	}
	found->value_end = next;
	return next;
}

/* Behind a tag whose name ends at at, or CUT also when it has an attribute to stop at. */
static Py_ssize_t uninteresting(const Scanner *self, const uint8_t *data, Py_ssize_t at, Py_ssize_t size, int look)
{
	struct attribute found;

	for (;;) {
		at = attribute(data, at, size, &found);
		if (at == CUT)
			return CUT;
		if (!found.name_end)
			return at + 1;
		if (!look || !among(&self->everywhere, data + found.name, found.name_end - found.name))
			continue;
		/* A style attribute without parenthesis holds no URL. */
		if (!is_called("style", data + found.name, found.name_end - found.name) || !found.quote || !found.tight ||
		    find(data, found.value, found.value_end, '(') != CUT)
			return CUT;
	}
}

/* Behind a tag with a src and nothing else that matters, or CUT. */
static Py_ssize_t single(const Scanner *self, const uint8_t *data, Py_ssize_t at, Py_ssize_t size, struct attribute *src)
{
	struct attribute found;

	src->value_end = 0;
	for (;;) {
		at = attribute(data, at, size, &found);
		if (at == CUT)
			return CUT;
		if (!found.name_end)
			return src->value_end ? at + 1 : CUT;
		if (!among(&self->deciding, data + found.name, found.name_end - found.name))
			continue;
		if (!is_called("src", data + found.name, found.name_end - found.name) || src->value_end ||
		    found.value_end == found.value)
			return CUT;
		*src = found;
	}
}

static PyObject *scan(Scanner *self, PyObject *const *arguments, Py_ssize_t count)
{
	char *octets;
	const uint8_t *data;
	Py_ssize_t length, at, size, next, name_end;
	struct attribute src;

	if (count != 3) {
		PyErr_SetString(PyExc_TypeError, "scan(data, at, size)");
		return NULL;
	}
	if (PyBytes_AsStringAndSize(arguments[0], &octets, &length) < 0)
		return NULL;
	at = PyLong_AsSsize_t(arguments[1]);
	size = PyLong_AsSsize_t(arguments[2]);
	if (PyErr_Occurred())
		return NULL;
	if (at < 0 || size > length || at > size) {
		PyErr_SetString(PyExc_ValueError, "outside of the data");
		return NULL;
	}
	data = (const uint8_t *)octets;
	while (at < size) {
		at = find(data, at, size, '<');
		if (at == CUT)
			at = size;
		if (at + 1 >= size)
			break;
		if (is_alpha(data[at + 1])) {
			name_end = at + 2;
			while (name_end < size && !is_space(data[name_end]) && data[name_end] != '/' && data[name_end] != '>')
				name_end++;
			if (name_end >= size)
				break;
			if (!among(&self->named, data + at + 1, name_end - at - 1)) {
				next = uninteresting(self, data, name_end, size, 1);
				if (next == CUT)
					break;
				at = next;
				continue;
			}
			if (!among(&self->simple, data + at + 1, name_end - at - 1))
				break;
			next = single(self, data, name_end, size, &src);
			if (next == CUT)
				break;
			return Py_BuildValue("nnny#y#", next, at, src.value, data + at + 1, name_end - at - 1, data + src.value,
					     src.value_end - src.value);
		}
		if (data[at + 1] == '/') {
			if (at + 2 >= size)
				break;
			if (!is_alpha(data[at + 2])) {
				next = find(data, at + 2, size, '>');
				next = next == CUT ? CUT : next + 1;
			} else {
				name_end = at + 3;
				while (name_end < size && !is_space(data[name_end]) && data[name_end] != '/' &&
				       data[name_end] != '>')
					name_end++;
				if (name_end >= size || among(&self->ends, data + at + 2, name_end - at - 2))
					break;
				next = uninteresting(self, data, name_end, size, 0);
			}
		} else if (data[at + 1] == '!') {
			if (size - at >= 4 && !memcmp(data + at, "<!--", 4)) {
				next = comment(data, at + 4, size);
			} else if (size - at >= 9 && !memcmp(data + at, "<![CDATA[", 9)) {
				break;
			} else {
				next = find(data, at + 2, size, '>');
				next = next == CUT ? CUT : next + 1;
			}
		} else if (data[at + 1] == '?') {
			next = find(data, at + 2, size, '>');
			next = next == CUT ? CUT : next + 1;
		} else {
			next = at + 1;
		}
		if (next == CUT)
			break;
		at = next;
	}
	return Py_BuildValue("nnnOO", at, at, at, Py_None, Py_None);
}

static int read_names(struct names *names, PyObject *given)
{
	Py_ssize_t count = PyTuple_Size(given);

	if (count < 0)
		return -1;
	if (count > MOST_NAMES) {
		PyErr_Format(PyExc_ValueError, "%zd names", count);
		return -1;
	}
	for (Py_ssize_t place = 0; place < count; place++) {
		char *text;
		Py_ssize_t length;

		if (PyBytes_AsStringAndSize(PyTuple_GetItem(given, place), &text, &length) < 0)
			return -1;
		if (length < 1 || length > LONGEST_NAME) {
			PyErr_Format(PyExc_ValueError, "a name of %zd octets", length);
			return -1;
		}
		memcpy(names->texts[place], text, (size_t)length);
		names->lengths[place] = (uint8_t)length;
	}
	names->count = (uint8_t)count;
	return 0;
}

static int init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
	Scanner *self = (Scanner *)object;
	PyObject *named, *ends, *everywhere, *simple, *deciding;

	if (keywords && PyDict_Size(keywords)) {
		PyErr_SetString(PyExc_TypeError, "no keywords");
		return -1;
	}
	if (!PyArg_ParseTuple(arguments, "OOOOO", &named, &ends, &everywhere, &simple, &deciding))
		return -1;
	if (read_names(&self->named, named) || read_names(&self->ends, ends) || read_names(&self->everywhere, everywhere) ||
	    read_names(&self->simple, simple) || read_names(&self->deciding, deciding))
		return -1;
	return 0;
}

static PyMethodDef methods[] = {
	{"scan", (PyCFunction)(void (*)(void))scan, METH_FASTCALL,
	 "scan(data, at, size): where it ends; where a tag with a single src begins, and that value; the element, the value"},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_doc, "Scanner(named, ends, everywhere, simple, deciding): tuples of names, lower-case octets"},
	{Py_tp_init, init},
	{Py_tp_methods, methods},
	{0, NULL},
};

static PyType_Spec spec = {"lbarray.rewrite._scan.Scanner", sizeof(Scanner), 0, Py_TPFLAGS_DEFAULT, slots};

static int add_type(PyObject *module)
{
	PyObject *type = PyType_FromSpec(&spec);

	return type ? PyModule_AddObject(module, "Scanner", type) : -1;
}

static PyModuleDef_Slot module_slots[] = {
	{Py_mod_exec, add_type},
	{0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "lbarray.rewrite._scan", NULL, 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__scan(void)
{
	return PyModuleDef_Init(&definition);
}
