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

static uint8_t of_token[256]; /* RFC 9110 section 5.6.2 */
static uint8_t of_value[256]; /* RFC 9110 section 5.5 */

typedef struct {
	PyObject_HEAD
	PyObject *kinds;
} Scanner;

struct place {
	const uint8_t *next, *end;
};

struct found {
	PyObject *fields, *forwarded, *host, *length;
};

static PyObject *text(const uint8_t *from, const uint8_t *to)
{
	return PyBytes_FromStringAndSize((const char *)from, to - from);
}

static int has(const struct place *in, Py_ssize_t octets)
{
	return in->end - in->next >= octets;
}

static int keeps(const uint8_t *value, const uint8_t *end)
{
	static const char words[] = "keep-alive";

	if (end - value != (Py_ssize_t)sizeof(words) - 1)
		return 0;
	for (const char *word = words; *word; word++, value++)
		if ((*value >= 'A' && *value <= 'Z' ? *value | 32 : *value) != (uint8_t)*word)
			return 0;
	return 1;
}

static int append(PyObject **list, PyObject *name, const uint8_t *value, const uint8_t *end)
{
	PyObject *octets, *pair = NULL;
	int failed = -1;

	if (!*list && !(*list = PyList_New(0)))
		return -1;
	octets = text(value, end);
	if (octets)
		pair = PyTuple_Pack(2, name, octets);
	if (pair)
		failed = PyList_Append(*list, pair);
	Py_XDECREF(pair);
	Py_XDECREF(octets);
	return failed;
}

static int once(PyObject **field, const uint8_t *value, const uint8_t *end)
{
	if (*field)
		return 1;
	*field = text(value, end);
	return *field ? 0 : -1;
}

/* What one field means: 0 to go on, 1 for one that is not for us, -1 for an error. */
static int sort(struct found *found, int response, long kind, PyObject *name, const uint8_t *value, const uint8_t *end)
{
	if (kind == ORDINARY || (response && kind >= FORWARDED))
		return append(&found->fields, name, value, end);
	if (kind == HOP || kind == OURS)
		return 0;
	if (kind == CONNECTION)
		return !keeps(value, end);
	if (kind == HOST && !response)
		return once(&found->host, value, end);
	if (kind == FORWARDED)
		return append(&found->forwarded, name, value, end);
	if (kind != CONTENT_LENGTH || !response || end - value > 15)
		return 1;
	for (const uint8_t *digit = value; digit < end; digit++)
		if (*digit < '0' || *digit > '9')
			return 1;
	return once(&found->length, value, end);
}

/* Field lines up to the empty one; the same answers. */
static int read_fields(const Scanner *self, struct place *in, struct found *found, int response)
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
		PyObject *key = text(name, name_end);
		PyObject *kind = key ? PyObject_GetItem(self->kinds, key) : NULL;
		long number = kind ? PyLong_AsLong(kind) : -1;
		int answer = number < 0 ? -1 : sort(found, response, number, key, value, end);

		Py_XDECREF(kind);
		Py_XDECREF(key);
		if (answer)
			return answer;
	}
}

static PyObject *give(struct found *found, PyObject *made, int answer)
{
	Py_XDECREF(found->fields);
	Py_XDECREF(found->forwarded);
	Py_XDECREF(found->host);
	Py_XDECREF(found->length);
	if (made || answer < 0)
		return made;
	Py_RETURN_NONE;
}

static PyObject *request(Scanner *self, PyObject *args)
{
	PyObject *data, *made = NULL;
	Py_ssize_t at, size;
	char *octets;

	if (!PyArg_ParseTuple(args, "On", &data, &at) || PyBytes_AsStringAndSize(data, &octets, &size) < 0)
		return NULL;
	if (at < 0 || at >= size)
		Py_RETURN_NONE;
	struct place in = {(const uint8_t *)octets + at, (const uint8_t *)octets + size};
	struct found found = {NULL, NULL, NULL, NULL};
	const uint8_t *method = in.next;

	while (in.next < in.end && *in.next >= 'A' && *in.next <= 'Z')
		in.next++;
	const uint8_t *method_end = in.next;

	if (method_end == method || !has(&in, 2) || *in.next++ != ' ' || *in.next != '/')
		Py_RETURN_NONE;
	const uint8_t *target = in.next;

	while (in.next < in.end && *in.next > ' ' && *in.next < 127)
		in.next++;
	const uint8_t *target_end = in.next;

	if (!has(&in, 11) || memcmp(in.next, " HTTP/1.1\r\n", 11))
		Py_RETURN_NONE;
	in.next += 11;
	int answer = (found.fields = PyList_New(0)) ? read_fields(self, &in, &found, 0) : -1;

	if (!answer && found.host)
		made = Py_BuildValue("(y#y#OOOn)", method, method_end - method, target, target_end - target, found.host,
			found.fields, found.forwarded ? found.forwarded : Py_None,
			(Py_ssize_t)(in.next - (const uint8_t *)octets));
	return give(&found, made, answer || made || !found.host ? answer : -1);
}

static PyObject *response(Scanner *self, PyObject *data)
{
	PyObject *made = NULL;
	Py_ssize_t size;
	char *octets;

	if (PyBytes_AsStringAndSize(data, &octets, &size) < 0)
		return NULL;
	struct place in = {(const uint8_t *)octets, (const uint8_t *)octets + size};
	struct found found = {NULL, NULL, NULL, NULL};

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
	int answer = (found.fields = PyList_New(0)) ? read_fields(self, &in, &found, 1) : -1;

	if (!answer && found.length) {
		PyObject *name = PyBytes_FromString("Content-Length"), *pair = NULL;
		long long length = 0;

		for (const char *digit = PyBytes_AsString(found.length); *digit; digit++)
			length = length * 10 + (*digit - '0');
		pair = name ? PyTuple_Pack(2, name, found.length) : NULL;
		if (pair && PyList_Append(found.fields, pair) == 0)
			made = Py_BuildValue("(iy#OLn)", status, reason, reason_end - reason, found.fields, length,
				(Py_ssize_t)(in.next - (const uint8_t *)octets));
		Py_XDECREF(pair);
		Py_XDECREF(name);
	}
	return give(&found, made, answer || made || !found.length ? answer : -1);
}

static int begin(Scanner *self, PyObject *args, PyObject *named)
{
	PyObject *kinds;

	(void)named;
	if (!PyArg_ParseTuple(args, "O", &kinds))
		return -1;
	Py_INCREF(kinds);
	Py_XDECREF(self->kinds);
	self->kinds = kinds;
	return 0;
}

static void end(Scanner *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);

	Py_XDECREF(self->kinds);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static PyMethodDef methods[] = {
	{"request", (PyCFunction)request, METH_VARARGS,
		"request(data, at): (method, target, host, fields, forwarded or None, end) of a whole plain head, or None"},
	{"response", (PyCFunction)response, METH_O,
		"response(data): (status, reason, fields, length, end) of a whole plain head, or None"},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
	{Py_tp_doc, "Scanner(kinds): a mapping of names to their kinds"},
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
	return type ? PyModule_AddObject(module, "Scanner", type) : -1;
}

static PyModuleDef_Slot module_slots[] = {
	{Py_mod_exec, add},
	{0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "lbarray.http._heads", NULL, 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__heads(void)
{
	return PyModuleDef_Init(&definition);
}
