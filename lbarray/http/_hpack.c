/* HPACK (RFC 7541), and the check of fields that goes with it (RFC 9113 section 8.2.1); lbarray/http/h2_compression.py
 * does the same by the library hpack where this is not built. Only what is in the limited API of CPython 3.11 is used.
 * What the decoder gives are the very tuples of its tables, so a header block like the one before costs no allocation.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STATICS 61
#define OVERHEAD 32 /* RFC 7541 section 4.1 */
#define MOST_OCTETS (1 << 24)
#define END_OF_STRING 256

static const char *const STATIC[STATICS][2] = {
	{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"},
	{":scheme", "http"}, {":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"},
	{":status", "304"}, {":status", "400"}, {":status", "404"}, {":status", "500"}, {"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"}, {"accept-language", ""}, {"accept-ranges", ""}, {"accept", ""},
	{"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""}, {"cache-control", ""},
	{"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
	{"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
	{"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""},
	{"location", ""}, {"max-forwards", ""}, {"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""},
	{"referer", ""}, {"refresh", ""}, {"retry-after", ""}, {"server", ""}, {"set-cookie", ""},
	{"strict-transport-security", ""}, {"transfer-encoding", ""}, {"user-agent", ""}, {"vary", ""}, {"via", ""},
	{"www-authenticate", ""},
};

/* RFC 7541 appendix B. The code is canonical: lengths say it all. */
static const uint8_t LENGTHS[257] = {
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28,
	28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13,
	6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6,
	6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23,
	23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23,
	22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22,
	25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22,
	21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
};

/* Filled once, when the module is made, and never changed. */
static PyObject *static_pairs[STATICS];
static uint8_t static_lengths[STATICS];
static uint32_t codes[257];
static uint16_t symbols[257];    /* by (length, symbol) */
static uint32_t first_code[32];  /* of each length */
static uint16_t first_place[32]; /* in symbols */
static uint32_t code_count[32];
static uint8_t of_token[256]; /* RFC 9110 section 5.6.2, in lower case */

static void make_codes(void)
{
	uint32_t code = 0;
	uint16_t place = 0;

	for (unsigned length = 1; length <= 30; length++) {
		code <<= 1;
		first_code[length] = code;
		first_place[length] = place;
		for (unsigned symbol = 0; symbol < 257; symbol++)
			if (LENGTHS[symbol] == length) {
				codes[symbol] = code++;
				symbols[place++] = (uint16_t)symbol;
				code_count[length]++;
			}
	}
}

/* A string of Huffman's code to octets; the number of them, or -1. There is room for 8 octets of each 5. */
static Py_ssize_t expand(const uint8_t *in, Py_ssize_t size, uint8_t *out)
{
	uint64_t bits = 0;
	unsigned have = 0;
	Py_ssize_t made = 0;

	for (;;) {
		while (have <= 56 && size) {
			bits = bits << 8 | *in++;
			have += 8;
			size--;
		}
		unsigned length = 5;
		uint32_t code = 0;

		for (; length <= 30 && length <= have; length++) {
			code = (uint32_t)(bits >> (have - length)) & ((1u << length) - 1);
			if (code - first_code[length] < code_count[length])
				break;
		}
		if (length > 30)
			return -1;
		if (length > have)
			break;
		unsigned symbol = symbols[first_place[length] + code - first_code[length]];

		if (symbol == END_OF_STRING)
			return -1;
		out[made++] = (uint8_t)symbol;
		have -= length;
	}
	/* RFC 7541 section 5.2: padding is the beginning of the code that ends strings, and short. */
	if (have > 7 || (bits & ((1u << have) - 1)) != (1u << have) - 1)
		return -1;
	return made;
}

/* The dynamic table of either side: a ring of pairs, the newest first. */
struct table {
	PyObject **ring;
	size_t capacity, newest, count, octets, limit, highest;
};

static int begin_table(struct table *table, size_t limit)
{
	memset(table, 0, sizeof(*table));
	table->limit = table->highest = limit;
	table->capacity = limit / OVERHEAD + 1;
	table->ring = calloc(table->capacity, sizeof(*table->ring));
	if (!table->ring) {
		PyErr_NoMemory();
		return -1;
	}
	return 0;
}

static PyObject *at(const struct table *table, size_t place)
{
	return table->ring[(table->newest + place) % table->capacity];
}

static int pair_of(PyObject *pair, const uint8_t **name, Py_ssize_t *name_size, const uint8_t **value, Py_ssize_t *value_size)
{
	char *octets[2];
	Py_ssize_t sizes[2];

	for (int which = 0; which < 2; which++) {
		PyObject *text = PyTuple_Check(pair) ? PyTuple_GetItem(pair, which) : NULL;

		if (!text || PyBytes_AsStringAndSize(text, &octets[which], &sizes[which]) < 0) {
			if (!PyErr_Occurred())
				PyErr_SetString(PyExc_TypeError, "a field is a tuple of two bytes");
			return -1;
		}
	}
	*name = (const uint8_t *)octets[0];
	*name_size = sizes[0];
	*value = (const uint8_t *)octets[1];
	*value_size = sizes[1];
	return 0;
}

static size_t size_of(PyObject *pair)
{
	return (size_t)(PyBytes_Size(PyTuple_GetItem(pair, 0)) + PyBytes_Size(PyTuple_GetItem(pair, 1))) + OVERHEAD;
}

static void shrink(struct table *table, size_t limit)
{
	while (table->octets > limit) {
		size_t oldest = (table->newest + table->count - 1) % table->capacity;

		table->octets -= size_of(table->ring[oldest]);
		Py_DECREF(table->ring[oldest]);
		table->count--;
	}
}

static void insert(struct table *table, PyObject *pair, size_t size)
{
	if (size > table->limit) { /* RFC 7541 section 4.4 */
		shrink(table, 0);
		return;
	}
	shrink(table, table->limit - size);
	table->newest = (table->newest + table->capacity - 1) % table->capacity;
	Py_INCREF(pair);
	table->ring[table->newest] = pair;
	table->count++;
	table->octets += size;
}

static void end_table(struct table *table)
{
	if (table->ring)
		shrink(table, 0);
	free(table->ring);
}

typedef struct {
	PyObject_HEAD
	struct table table;
	size_t most; /* octets of a header list */
} Decoder;

struct reader {
	const uint8_t *next, *end;
};

static int broken(const char *why)
{
	PyErr_SetString(PyExc_ValueError, why);
	return -1;
}

/* RFC 7541 section 5.1 */
static int read_number(struct reader *in, unsigned prefix, size_t *number)
{
	size_t mask = ((size_t)1 << prefix) - 1;
	size_t value = *in->next++ & mask;

	if (value == mask)
		for (unsigned shift = 0;; shift += 7) {
			if (in->next == in->end)
				return broken("a number that breaks off");
			uint8_t octet = *in->next++;

			if (shift > 21)
				return broken("a number beyond all measure");
			value += (size_t)(octet & 127) << shift;
			if (!(octet & 128))
				break;
		}
	*number = value;
	return 0;
}

static PyObject *read_string(struct reader *in)
{
	size_t size;

	if (in->next == in->end) {
		broken("a string that breaks off");
		return NULL;
	}
	int coded = *in->next & 128;

	if (read_number(in, 7, &size) < 0)
		return NULL;
	if (size > (size_t)(in->end - in->next) || size > MOST_OCTETS) {
		broken("a string that breaks off");
		return NULL;
	}
	const uint8_t *octets = in->next;

	in->next += size;
	if (!coded)
		return PyBytes_FromStringAndSize((const char *)octets, (Py_ssize_t)size);
	uint8_t small[512];
	size_t room = size * 8 / 5 + 1;
	uint8_t *out = room <= sizeof(small) ? small : malloc(room);

	if (!out)
		return PyErr_NoMemory();
	Py_ssize_t made = expand(octets, (Py_ssize_t)size, out);
	PyObject *text = NULL;

	if (made < 0)
		broken("a string that is not of the code");
	else
		text = PyBytes_FromStringAndSize((const char *)out, made);
	if (out != small)
		free(out);
	return text;
}

/* Borrowed. */
static PyObject *indexed(const Decoder *self, size_t index)
{
	if (index >= 1 && index <= STATICS)
		return static_pairs[index - 1];
	if (index > STATICS && index - STATICS <= self->table.count)
		return at(&self->table, index - STATICS - 1);
	broken("an index of nothing");
	return NULL;
}

static PyObject *read_literal(Decoder *self, struct reader *in, unsigned prefix)
{
	size_t index;
	PyObject *name, *value, *pair, *known;

	if (read_number(in, prefix, &index) < 0)
		return NULL;
	if (index) {
		known = indexed(self, index);
		if (!known)
			return NULL;
		name = PyTuple_GetItem(known, 0);
		Py_INCREF(name);
	} else if (!(name = read_string(in))) {
		return NULL;
	}
	value = read_string(in);
	pair = value ? PyTuple_Pack(2, name, value) : NULL;
	Py_DECREF(name);
	Py_XDECREF(value);
	return pair;
}

static int read_block(Decoder *self, struct reader *in, PyObject *list)
{
	size_t octets = 0;
	int begun = 0;

	while (in->next < in->end) {
		uint8_t first = *in->next;
		PyObject *pair;

		if (first & 128) {
			size_t index;

			if (read_number(in, 7, &index) < 0 || !(pair = indexed(self, index)))
				return -1;
			Py_INCREF(pair);
		} else if (first & 64) {
			if (!(pair = read_literal(self, in, 6)))
				return -1;
			insert(&self->table, pair, size_of(pair));
		} else if (first & 32) {
			size_t limit;

			if (read_number(in, 5, &limit) < 0)
				return -1;
			if (begun || limit > self->table.highest)
				return broken("a size of the table that is none");
			self->table.limit = limit;
			shrink(&self->table, limit);
			continue;
		} else if (!(pair = read_literal(self, in, 4))) {
			return -1;
		}
		begun = 1;
		octets += size_of(pair);
		int failed = octets > self->most;

		if (failed)
			PyErr_SetString(PyExc_OverflowError, "a header list without end");
		else
			failed = PyList_Append(list, pair) < 0;
		Py_DECREF(pair);
		if (failed)
			return -1;
	}
	return 0;
}

static PyObject *decode(Decoder *self, PyObject *block)
{
	char *octets;
	Py_ssize_t size;

	if (PyBytes_AsStringAndSize(block, &octets, &size) < 0)
		return NULL;
	struct reader in = {(const uint8_t *)octets, (const uint8_t *)octets + size};
	PyObject *list = PyList_New(0);

	if (list && read_block(self, &in, list) < 0) {
		Py_DECREF(list);
		return NULL;
	}
	return list;
}

static int begin_decoder(Decoder *self, PyObject *args, PyObject *named)
{
	Py_ssize_t limit, most;

	if (!PyArg_ParseTuple(args, "nn", &limit, &most))
		return -1;
	if (named || self->table.ring || limit < 0 || limit > MOST_OCTETS || most < 0)
		return broken("Decoder(octets of the table, octets of a list), once");
	self->most = (size_t)most;
	return begin_table(&self->table, (size_t)limit);
}

static void end_decoder(Decoder *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);

	end_table(&self->table);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

typedef struct {
	PyObject_HEAD
	struct table table;
	int resized; /* the peer must be told */
	size_t lowest;
} Encoder;

struct writer {
	uint8_t *octets;
	size_t used, room;
};

static int make_room(struct writer *out, size_t more)
{
	if (out->room - out->used >= more)
		return 0;
	size_t room = (out->used + more) * 2;
	uint8_t *octets = realloc(out->octets, room);

	if (!octets) {
		PyErr_NoMemory();
		return -1;
	}
	out->octets = octets;
	out->room = room;
	return 0;
}

/* There is room. */
static void write_number(struct writer *out, unsigned first, unsigned prefix, size_t number)
{
	size_t mask = ((size_t)1 << prefix) - 1;

	if (number < mask) {
		out->octets[out->used++] = (uint8_t)(first | number);
		return;
	}
	out->octets[out->used++] = (uint8_t)(first | mask);
	for (number -= mask; number > 127; number >>= 7)
		out->octets[out->used++] = (uint8_t)(number & 127) | 128;
	out->octets[out->used++] = (uint8_t)number;
}

static int write_string(struct writer *out, const uint8_t *text, size_t size)
{
	size_t bits = 0;

	for (size_t place = 0; place < size; place++)
		bits += LENGTHS[text[place]];
	size_t coded = (bits + 7) / 8;

	if (make_room(out, 10 + (coded < size ? coded : size)) < 0)
		return -1;
	if (coded >= size) {
		write_number(out, 0, 7, size);
		memcpy(out->octets + out->used, text, size);
		out->used += size;
		return 0;
	}
	write_number(out, 128, 7, coded);
	uint64_t held = 0;
	unsigned have = 0;

	for (size_t place = 0; place < size; place++) {
		held = held << LENGTHS[text[place]] | codes[text[place]];
		have += LENGTHS[text[place]];
		while (have >= 8) {
			have -= 8;
			out->octets[out->used++] = (uint8_t)(held >> have);
		}
	}
	if (have)
		out->octets[out->used++] = (uint8_t)(held << (8 - have) | ((1u << (8 - have)) - 1));
	return 0;
}

static int same(const uint8_t *text, size_t size, const char *other)
{
	return strlen(other) == size && !memcmp(text, other, size);
}

/* How a field is sent that is in no table: its values never come again, or must not be guessed (RFC 7541 section 7.1). */
static unsigned kind_of(const uint8_t *name, size_t size)
{
	switch (size) {
	case 3:
		return same(name, size, "age") ? 0x00 : 0x40;
	case 4:
		return same(name, size, "etag") ? 0x00 : 0x40;
	case 8:
		return same(name, size, "location") ? 0x00 : 0x40;
	case 10:
		return same(name, size, "set-cookie") ? 0x10 : 0x40;
	case 13:
		return same(name, size, "authorization") ? 0x10 : same(name, size, "content-range") ? 0x00 : 0x40;
	case 14:
		return same(name, size, "content-length") ? 0x00 : 0x40;
	default:
		return 0x40;
	}
}

static int write_field(Encoder *self, struct writer *out, PyObject *given)
{
	const uint8_t *raw, *value, *known, *known_value;
	Py_ssize_t size, value_size, known_size, known_value_size;
	size_t index = 0;
	uint8_t small[128];

	if (pair_of(given, &raw, &size, &value, &value_size) < 0)
		return -1;
	while (value_size && (*value == ' ' || *value == '\t'))
		value++, value_size--;
	while (value_size && (value[value_size - 1] == ' ' || value[value_size - 1] == '\t'))
		value_size--;
	uint8_t *name = (size_t)size <= sizeof(small) ? small : malloc((size_t)size);

	if (!name) {
		PyErr_NoMemory();
		return -1;
	}
	for (Py_ssize_t place = 0; place < size; place++)
		name[place] = raw[place] >= 'A' && raw[place] <= 'Z' ? raw[place] | 32 : raw[place];
	int whole = 0;
	int failed = make_room(out, 20);

	for (size_t place = 0; place < self->table.count && !whole; place++) {
		if (pair_of(at(&self->table, place), &known, &known_size, &known_value, &known_value_size) < 0)
			failed = -1;
		else if (known_size == size && !memcmp(known, name, (size_t)size)) {
			whole = known_value_size == value_size && !memcmp(known_value, value, (size_t)value_size);
			if (whole || !index)
				index = STATICS + 1 + place;
		}
	}
	for (size_t place = 0; place < STATICS && !whole; place++)
		if (static_lengths[place] == size && !memcmp(STATIC[place][0], name, (size_t)size)) {
			whole = same(value, (size_t)value_size, STATIC[place][1]);
			if (whole || !index || index > STATICS)
				index = place + 1;
		}
	if (failed < 0) {
		/* below */
	} else if (whole) {
		write_number(out, 128, 7, index);
	} else {
		size_t octets = (size_t)(size + value_size) + OVERHEAD;
		unsigned kind = kind_of(name, (size_t)size);

		if (kind == 0x40 && octets > self->table.limit / 4)
			kind = 0x00;
		write_number(out, kind, kind == 0x40 ? 6 : 4, index);
		if (!index)
			failed = write_string(out, name, (size_t)size);
		if (failed >= 0)
			failed = write_string(out, value, (size_t)value_size);
		if (failed >= 0 && kind == 0x40) {
			PyObject *pair = Py_BuildValue("(y#y#)", name, size, value, value_size);

			if (pair)
				insert(&self->table, pair, octets);
			else
				failed = -1;
			Py_XDECREF(pair);
		}
	}
	if (name != small)
		free(name);
	return failed;
}

static PyObject *encode(Encoder *self, PyObject *fields)
{
	struct writer out = {malloc(512), 0, 512};
	Py_ssize_t count = PyList_Size(fields);
	PyObject *block = NULL;

	if (!out.octets)
		return PyErr_NoMemory();
	if (self->resized) {
		if (self->lowest < self->table.limit)
			write_number(&out, 32, 5, self->lowest);
		write_number(&out, 32, 5, self->table.limit);
		self->resized = 0;
	}
	Py_ssize_t place = 0;

	while (place < count && write_field(self, &out, PyList_GetItem(fields, place)) >= 0)
		place++;
	if (count >= 0 && place == count)
		block = PyBytes_FromStringAndSize((const char *)out.octets, (Py_ssize_t)out.used);
	free(out.octets);
	return block;
}

static PyObject *resize(Encoder *self, PyObject *number)
{
	size_t limit = PyLong_AsSize_t(number);

	if (limit == (size_t)-1 && PyErr_Occurred())
		return NULL;
	if (limit > self->table.highest)
		limit = self->table.highest;
	if (limit != self->table.limit) {
		if (!self->resized || limit < self->lowest)
			self->lowest = limit;
		self->resized = 1;
		self->table.limit = limit;
		shrink(&self->table, limit);
	}
	Py_RETURN_NONE;
}

static int begin_encoder(Encoder *self, PyObject *args, PyObject *named)
{
	Py_ssize_t limit;

	if (!PyArg_ParseTuple(args, "n", &limit))
		return -1;
	if (named || self->table.ring || limit < 0 || limit > MOST_OCTETS)
		return broken("Encoder(octets of the table), once");
	return begin_table(&self->table, (size_t)limit);
}

static void end_encoder(Encoder *self)
{
	PyTypeObject *type = Py_TYPE((PyObject *)self);

	end_table(&self->table);
	((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
	Py_DECREF(type);
}

static PyObject *first_invalid(PyObject *module, PyObject *fields)
{
	Py_ssize_t count = PyList_Size(fields);

	(void)module;
	if (count < 0)
		return NULL;
	for (Py_ssize_t place = 0; place < count; place++) {
		const uint8_t *name, *value;
		Py_ssize_t size, value_size, from = 0;

		if (pair_of(PyList_GetItem(fields, place), &name, &size, &value, &value_size) < 0)
			return NULL;
		int valid = size > 0;

		if (valid && name[0] == ':') /* of pseudo-header fields there are few, known by name */
			continue;
		for (; from < size && valid; from++)
			valid = of_token[name[from]];
		if (value_size && valid)
			valid = value[0] != ' ' && value[0] != '\t' && value[value_size - 1] != ' ' &&
				value[value_size - 1] != '\t';
		for (from = 0; from < value_size && valid; from++)
			valid = value[from] != '\r' && value[from] != '\n' && value[from] != '\0';
		if (!valid)
			return PyLong_FromSsize_t(place);
	}
	return PyLong_FromLong(-1);
}

static PyMethodDef decoder_methods[] = {
	{"decode", (PyCFunction)decode, METH_O, "decode(block): its list of (name, value)"},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot decoder_slots[] = {
	{Py_tp_doc, "Decoder(octets of the table, octets of a list)"},
	{Py_tp_init, begin_decoder},
	{Py_tp_dealloc, end_decoder},
	{Py_tp_methods, decoder_methods},
	{0, NULL},
};

static PyMethodDef encoder_methods[] = {
	{"encode", (PyCFunction)encode, METH_O, "encode(list of (name, value)): the header block"},
	{"resize", (PyCFunction)resize, METH_O, "resize(octets of the peer's table)"},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot encoder_slots[] = {
	{Py_tp_doc, "Encoder(octets of the table)"},
	{Py_tp_init, begin_encoder},
	{Py_tp_dealloc, end_encoder},
	{Py_tp_methods, encoder_methods},
	{0, NULL},
};

static PyType_Spec decoder_spec = {"lbarray.http._hpack.Decoder", sizeof(Decoder), 0, Py_TPFLAGS_DEFAULT, decoder_slots};
static PyType_Spec encoder_spec = {"lbarray.http._hpack.Encoder", sizeof(Encoder), 0, Py_TPFLAGS_DEFAULT, encoder_slots};

static PyMethodDef functions[] = {
	{"first_invalid", first_invalid, METH_O, "first_invalid(list of (name, value)): its place, or -1"},
	{NULL, NULL, 0, NULL},
};

static int add(PyObject *module)
{
	PyObject *decoder = PyType_FromSpec(&decoder_spec), *encoder = PyType_FromSpec(&encoder_spec);

	if (!static_pairs[0]) {
		make_codes();
		for (const char *octet = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"; *octet; octet++)
			of_token[(uint8_t)*octet] = 1;
		for (int place = STATICS - 1; place >= 0; place--) {
			static_lengths[place] = (uint8_t)strlen(STATIC[place][0]);
			static_pairs[place] = Py_BuildValue("(yy)", STATIC[place][0], STATIC[place][1]);
			if (!static_pairs[place])
				return -1;
		}
	}
	if (!decoder || !encoder || PyModule_AddObject(module, "Decoder", decoder) < 0)
		return -1;
	return PyModule_AddObject(module, "Encoder", encoder);
}

static PyModuleDef_Slot module_slots[] = {
	{Py_mod_exec, add},
	{0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "lbarray.http._hpack", NULL, 0, functions, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__hpack(void)
{
	return PyModuleDef_Init(&definition);
}
