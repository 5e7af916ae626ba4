/* The heads of nearly all messages of HTTP/1.1 in one look: those that came whole and have nothing unusual about them.
 * Whatever is unusual is left to llhttp, which says what is wrong with it, so this grammar is narrower than RFC 9112's:
 * every octet that it lets pass is one that llhttp lets pass, with the same meaning. Only what is in the limited API of
 * CPython 3.11 is used, and no octet at or beyond the end is read. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* lbarray/http/fields.py */
enum { ORDINARY, HOST, CONTENT_LENGTH, CONNECTION = 4, HOP = 8, FORWARDED, MAX_FORWARDS, VIA, OURS };
/* Octets of fields that are passed on; heads with more of them are rare. The names and methods that are known, and their
 * octets. */
enum { ROOM = 8192, KNOWN = 64, LONGEST = 32 };

static uint8_t of_token[256]; /* RFC 9110 section 5.6.2 */
static uint8_t of_value[256]; /* RFC 9110 section 5.5 */
static uint8_t lower[256];

struct name {
	const char *octets;
	PyObject *method;
	long kind;
};

struct names {
	PyObject *kept;
	uint8_t first[LONGEST + 2]; /* by length */
	struct name names[KNOWN];
};

typedef struct {
	PyObject_HEAD
	struct names kinds, methods;
	PyObject *host; /* the one seen last: connections ask for the same again and again */
} Scanner;

struct place {
	const uint8_t *next, *end;
};

/* ``lines``: what is passed on, each as "Name: value\r\n". */
struct found {
	PyObject *forwarded, *host, *agent, *referer;
	const uint8_t *length, *length_end;
	Py_ssize_t count, octets;
	char lines[ROOM];
};

static PyObject *text(const uint8_t *from, const uint8_t *to)
{
	return PyBytes_FromStringAndSize((const char *)from, to - from);
}

static int has(const struct place *in, Py_ssize_t octets)
{
	return in->end - in->next >= octets;
}

/* The same but for case; ``word`` is in lower case. */
static int same(const uint8_t *from, const char *word, Py_ssize_t size)
{
	while (size--)
		if (lower[*from++] != (uint8_t)*word++)
			return 0;
	return 1;
}

static int is(const uint8_t *from, const uint8_t *to, const char *word)
{
	Py_ssize_t size = (Py_ssize_t)strlen(word);

	return to - from == size && same(from, word, size);
}

static long kind_of(const Scanner *self, const uint8_t *from, const uint8_t *to)
{
	const struct names *kinds = &self->kinds;
	Py_ssize_t size = to - from;

	if (size <= LONGEST)
		for (int at = kinds->first[size]; at < kinds->first[size + 1]; at++)
			if (same(from, kinds->names[at].octets, size))
				return kinds->names[at].kind;
	return ORDINARY;
}

static PyObject *method_of(const Scanner *self, const uint8_t *from, const uint8_t *to)
{
	const struct names *methods = &self->methods;
	Py_ssize_t size = to - from;

	if (size <= LONGEST)
		for (int at = methods->first[size]; at < methods->first[size + 1]; at++)
			if (!memcmp(from, methods->names[at].octets, (size_t)size))
				return methods->names[at].method;
	return NULL;
}

static int keep(struct found *found, const uint8_t *name, const uint8_t *name_end, const uint8_t *value,
	const uint8_t *end)
{
	Py_ssize_t size = name_end - name + (end - value) + 4;
	char *to = found->lines + found->octets;

	if (found->octets + size > ROOM)
		return 1;
	memcpy(to, name, (size_t)(name_end - name));
	to += name_end - name;
	*to++ = ':';
	*to++ = ' ';
	memcpy(to, value, (size_t)(end - value));
	memcpy(to + (end - value), "\r\n", 2);
	found->octets += size;
	found->count++;
	return 0;
}

/* The last value of a field that is looked at, too. */
static int note(PyObject **field, const uint8_t *value, const uint8_t *end)
{
	Py_XDECREF(*field);
	*field = text(value, end);
	return *field ? 0 : -1;
}

static int append(PyObject **list, const uint8_t *name, const uint8_t *name_end, const uint8_t *value,
	const uint8_t *end)
{
	PyObject *pair;
	int failed;

	if (!*list && !(*list = PyList_New(0)))
		return -1;
	pair = Py_BuildValue("(y#y#)", name, name_end - name, value, end - value);
	if (!pair)
		return -1;
	failed = PyList_Append(*list, pair);
	Py_DECREF(pair);
	return failed;
}

static int take_host(Scanner *self, struct found *found, const uint8_t *value, const uint8_t *end)
{
	if (found->host)
		return 1;
	found->count++;
	if (PyBytes_Size(self->host) != end - value || memcmp(PyBytes_AsString(self->host), value, (size_t)(end - value))) {
		PyObject *host = text(value, end);

		if (!host)
			return -1;
		Py_DECREF(self->host);
		self->host = host;
	}
	Py_INCREF(self->host);
	found->host = self->host;
	return 0;
}

/* What one field of a request means: 0 to go on, 1 for one that is not for us, -1 for an error. */
static int sort_request(Scanner *self, struct found *found, const uint8_t *name, const uint8_t *name_end,
	const uint8_t *value, const uint8_t *end)
{
	int failed = 0;

	switch (kind_of(self, name, name_end)) {
	case ORDINARY:
		if (is(name, name_end, "user-agent"))
			failed = note(&found->agent, value, end);
		else if (is(name, name_end, "referer"))
			failed = note(&found->referer, value, end);
		return failed ? failed : keep(found, name, name_end, value, end);
	case HOST:
		return take_host(self, found, value, end);
	case CONNECTION:
		found->count++;
		return !is(value, end, "keep-alive");
	case FORWARDED:
		return append(&found->forwarded, name, name_end, value, end);
	case HOP:
	case OURS:
		return 0;
	default:
		return 1;
	}
}

/* The same of a response. */
static int sort_response(const Scanner *self, struct found *found, const uint8_t *name, const uint8_t *name_end,
	const uint8_t *value, const uint8_t *end)
{
	long kind = kind_of(self, name, name_end);

	if (kind == ORDINARY || kind >= FORWARDED)
		return keep(found, name, name_end, value, end);
	if (kind == HOP)
		return 0;
	if (kind == CONNECTION)
		return !is(value, end, "keep-alive");
	if (kind != CONTENT_LENGTH || found->length || end - value > 15)
		return 1;
	for (const uint8_t *digit = value; digit < end; digit++)
		if (*digit < '0' || *digit > '9')
			return 1;
	found->length = value;
	found->length_end = end;
	return 0;
}

/* Field lines up to the empty one; the same answers. */
static int read_fields(Scanner *self, struct place *in, struct found *found, int response)
{
	for (;;) {
		if (!has(in, 2))
			return 1;
		if (in->next[0] == '\r') {
			in->next += 2;
			return in->next[-1] != '\n';
		}
		const uint8_t *name = in->next;

		while (in->next < in->end && of_token[*in->next])
			in->next++;
		const uint8_t *name_end = in->next;

		if (name_end == name || !has(in, 1) || *in->next++ != ':')
			return 1;
		while (in->next < in->end && (*in->next == ' ' || *in->next == '\t'))
			in->next++;
		const uint8_t *value = in->next;

		while (in->next < in->end && of_value[*in->next])
			in->next++;
		const uint8_t *end = in->next;

		if (!has(in, 2) || in->next[0] != '\r' || in->next[1] != '\n' || end == value || end[-1] == ' ' ||
			end[-1] == '\t')
			return 1;
		in->next += 2;
		int answer = response ? sort_response(self, found, name, name_end, value, end)
			: sort_request(self, found, name, name_end, value, end);

		if (answer)
			return answer;
	}
}

/* A tuple of ``count`` new references, which it takes, whatever becomes of it. */
static PyObject *tuple_of(Py_ssize_t count, PyObject **items)
{
	PyObject *made = PyTuple_New(count);

	for (Py_ssize_t at = 0; at < count; at++)
		if (!items[at])
			Py_CLEAR(made);
	for (Py_ssize_t at = 0; at < count; at++)
		if (!made)
			Py_XDECREF(items[at]);
		else
			PyTuple_SetItem(made, at, items[at]);
	return made;
}

static PyObject *or_none(PyObject **object)
{
	PyObject *found = *object;

	*object = NULL;
	if (found)
		return found;
	Py_INCREF(Py_None);
	return Py_None;
}

/* Is it in normal form as it is? What makes another look worth while (lbarray/http/target.py) is rare. */
static int is_normal(const uint8_t *from, const uint8_t *to)
{
	for (; from < to; from++)
		if (*from == '%' || *from == '#' || *from == '\\' || (*from == '/' && from + 1 < to && from[1] == '.'))
			return 0;
	return 1;
}

static PyObject *request(Scanner *self, PyObject *args)
{
	PyObject *data, *method, *made = NULL;
	Py_ssize_t at, size;
	char *octets;

	if (!PyArg_ParseTuple(args, "On", &data, &at) || PyBytes_AsStringAndSize(data, &octets, &size) < 0)
		return NULL;
	if (at < 0 || at >= size)
		Py_RETURN_NONE;
	struct place in = {(const uint8_t *)octets + at, (const uint8_t *)octets + size};
	const uint8_t *first = in.next;

	while (in.next < in.end && *in.next >= 'A' && *in.next <= 'Z')
		in.next++;
	method = method_of(self, first, in.next);
	if (!method || !has(&in, 2) || *in.next++ != ' ' || *in.next != '/')
		Py_RETURN_NONE;
	const uint8_t *target = in.next;

	while (in.next < in.end && *in.next > ' ' && *in.next < 127)
		in.next++;
	const uint8_t *target_end = in.next;

	if (!has(&in, 11) || memcmp(in.next, " HTTP/1.1\r\n", 11))
		Py_RETURN_NONE;
	in.next += 11;
	struct found found;

	found.forwarded = found.host = found.agent = found.referer = NULL;
	found.count = found.octets = 0;
	int answer = read_fields(self, &in, &found, 0);

	if (!answer && found.host) {
		Py_INCREF(method);
		PyObject *items[] = {method, text(target, target_end), PyBool_FromLong(is_normal(target, target_end)),
			or_none(&found.host), PyBytes_FromStringAndSize(found.lines, found.octets), or_none(&found.forwarded),
			or_none(&found.agent), or_none(&found.referer), PyLong_FromSsize_t(found.count),
			PyLong_FromSsize_t(in.next - (const uint8_t *)octets)};

		made = tuple_of(10, items);
		answer = -1;
	}
	Py_XDECREF(found.forwarded);
	Py_XDECREF(found.host);
	Py_XDECREF(found.agent);
	Py_XDECREF(found.referer);
	if (made || answer < 0)
		return made;
	Py_RETURN_NONE;
}

static PyObject *response(Scanner *self, PyObject *data)
{
	static const char length[] = "Content-Length";
	Py_ssize_t size;
	char *octets;

	if (PyBytes_AsStringAndSize(data, &octets, &size) < 0)
		return NULL;
	struct place in = {(const uint8_t *)octets, (const uint8_t *)octets + size};
	struct found found;

	if (size < 15 || memcmp(octets, "HTTP/1.1 ", 9) || octets[12] != ' ')
		Py_RETURN_NONE;
	int status = 0;

	for (int place = 9; place < 12; place++) {
		if (octets[place] < '0' || octets[place] > '9')
			Py_RETURN_NONE;
		status = status * 10 + octets[place] - '0';
	}
	if (status < 200 || status > 599 || status == 204 || status == 304)
		Py_RETURN_NONE;
	in.next += 13;
	const uint8_t *reason = in.next;

	while (in.next < in.end && of_value[*in.next])
		in.next++;
	const uint8_t *reason_end = in.next;

	if (!has(&in, 2) || in.next[0] != '\r' || in.next[1] != '\n' || reason_end == reason)
		Py_RETURN_NONE;
	in.next += 2;
	found.length = found.length_end = NULL;
	found.count = found.octets = 0;
	if (read_fields(self, &in, &found, 1) || !found.length ||
		keep(&found, (const uint8_t *)length, (const uint8_t *)length + sizeof(length) - 1, found.length, found.length_end))
		Py_RETURN_NONE;
	long long number = 0;

	for (const uint8_t *digit = found.length; digit < found.length_end; digit++)
		number = number * 10 + (*digit - '0');
	PyObject *items[] = {PyLong_FromLong(status), text(reason, reason_end),
		PyBytes_FromStringAndSize(found.lines, found.octets), PyLong_FromSsize_t(found.count), PyLong_FromLongLong(number),
		PyLong_FromSsize_t(in.next - (const uint8_t *)octets)};

	return tuple_of(6, items);
}

/* The lines that the two above give, each as (name, value). */
static PyObject *fields(PyObject *self, PyObject *data)
{
	PyObject *made = PyList_New(0);
	Py_ssize_t size;
	char *octets;

	(void)self;
	if (!made || PyBytes_AsStringAndSize(data, &octets, &size) < 0) {
		Py_XDECREF(made);
		return NULL;
	}
	const uint8_t *next = (const uint8_t *)octets, *end = next + size;

	while (next < end) {
		const uint8_t *colon = memchr(next, ':', (size_t)(end - next));
		const uint8_t *stop = colon ? memchr(colon, '\r', (size_t)(end - colon)) : NULL;

		if (!stop || stop - colon < 2) {
			PyErr_SetString(PyExc_ValueError, "no lines of fields");
			Py_DECREF(made);
			return NULL;
		}
		PyObject *items[] = {text(next, colon), text(colon + 2, stop)}, *pair = tuple_of(2, items);
		int failed = pair ? PyList_Append(made, pair) : -1;

		Py_XDECREF(pair);
		if (failed) {
			Py_DECREF(made);
			return NULL;
		}
		next = stop + 2;
	}
	return made;
}

/* ``given``: a tuple of names, or of (name, kind), the shortest first. */
static int learn(struct names *names, PyObject *given, int kinds)
{
	Py_ssize_t count = PyTuple_Size(given);

	if (count > KNOWN) {
		PyErr_Format(PyExc_ValueError, "more than %d names", KNOWN);
		return -1;
	}
	memset(names->first, (int)count, sizeof(names->first));
	for (Py_ssize_t at = count - 1; at >= 0; at--) {
		PyObject *one = PyTuple_GetItem(given, at);
		struct name *name = &names->names[at];
		Py_ssize_t size = -1;

		if (!kinds || PyArg_ParseTuple(one, "Sl", &one, &name->kind))
			size = PyBytes_Size(one);
		if (size < 1 || size > LONGEST || (at + 1 < count && names->first[size] != at + 1)) {
			if (!PyErr_Occurred())
				PyErr_SetString(PyExc_ValueError, "names of 1 to 32 octets, the shortest first");
			memset(names->first, 0, sizeof(names->first));
			return -1;
		}
		name->octets = PyBytes_AsString(one);
		name->method = one;
		for (Py_ssize_t length = 0; length <= size; length++)
			names->first[length] = (uint8_t)at;
	}
	Py_INCREF(given);
	names->kept = given;
	return 0;
}

static int begin(Scanner *self, PyObject *args, PyObject *named)
{
	PyObject *kinds, *methods;

	(void)named;
	if (!PyArg_ParseTuple(args, "O!O!", &PyTuple_Type, &kinds, &PyTuple_Type, &methods))
		return -1;
	if (self->host) {
		PyErr_SetString(PyExc_TypeError, "it knows its names already");
		return -1;
	}
	if (learn(&self->kinds, kinds, 1) || learn(&self->methods, methods, 0))
		return -1;
	self->host = PyBytes_FromString("");
	return self->host ? 0 : -1;
}

static void end(Scanner *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);

	Py_XDECREF(self->kinds.kept);
	Py_XDECREF(self->methods.kept);
	Py_XDECREF(self->host);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static PyMethodDef methods[] = {
	{"request", (PyCFunction)request, METH_VARARGS,
		"request(data, at): (method, target, target is in normal form, host, lines, forwarded, agent, referer, number of "
		"fields, end) of a whole plain head, or None"},
	{"response", (PyCFunction)response, METH_O,
		"response(data): (status, reason, lines, number of fields, length, end) of a whole plain head, or None"},
	{NULL, NULL, 0, NULL},
};

static PyMethodDef functions[] = {
	{"fields", fields, METH_O, "fields(lines): a list of (name, value)"},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_doc, "Scanner(kinds, methods): tuples of (name in lower case, kind), the shortest first, and of names"},
	{Py_tp_init, begin},
	{Py_tp_dealloc, end},
	{Py_tp_methods, methods},
	{0, NULL},
};

static PyType_Spec spec = {"lbarray.http._heads.Scanner", sizeof(Scanner), 0, Py_TPFLAGS_DEFAULT, slots};

static int add(PyObject *module)
{
	PyObject *type = PyType_FromSpec(&spec);

	for (const char *octet = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"; *octet; octet++)
		of_token[(uint8_t)*octet] = 1;
	for (int octet = 32; octet < 256; octet++)
		of_value[octet] = octet != 127;
	of_value['\t'] = 1;
	for (int octet = 0; octet < 256; octet++)
		lower[octet] = (uint8_t)(octet >= 'A' && octet <= 'Z' ? octet | 32 : octet);
	return type ? PyModule_AddObject(module, "Scanner", type) : -1;
}

static PyModuleDef_Slot module_slots[] = {
	{Py_mod_exec, add},
	{0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "lbarray.http._heads", NULL, 0, functions, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__heads(void)
{
	return PyModuleDef_Init(&definition);
}
