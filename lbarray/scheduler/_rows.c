/* The loops of the Maglev table that are worth a compiler; lbarray/scheduler/maglev.py has them in Python too.
 * Only what is in the limited API of CPython 3.11 is used, so that one build serves all later ones. */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

#define FREE 0xFFFF

struct turn {
	uint32_t position;
	uint32_t skip;
	uint32_t weight;
	uint32_t credit;
};

static int whole(const Py_buffer *view, size_t item, const char *what)
{
	if (view->len % item == 0)
		return 1;
	PyErr_Format(PyExc_ValueError, "%s: %zd octets", what, view->len);
	return 0;
}

static int take_turns(struct turn *turns, Py_ssize_t workers, uint32_t heaviest, uint16_t *rows, uint32_t size)
{
	uint32_t left = size;

	while (left) {
		for (Py_ssize_t place = 0; place < workers; place++) {
			struct turn *turn = &turns[place];
			uint32_t row = turn->position;

			turn->credit += turn->weight;
			if (turn->credit < heaviest)
				continue;
			turn->credit -= heaviest;
			while (rows[row] != FREE) {
				row += turn->skip;
				if (row >= size)
					row -= size;
			}
			rows[row] = (uint16_t)place;
			row += turn->skip;
			turn->position = row >= size ? row - size : row;
			if (!--left)
				break;
		}
	}
	return 0;
}

static PyObject *fill(PyObject *module, PyObject *args)
{
	Py_buffer offsets, skips, weights, out;
	PyObject *result = NULL;

	(void)module;
	if (!PyArg_ParseTuple(args, "y*y*y*w*", &offsets, &skips, &weights, &out))
		return NULL;
	Py_ssize_t workers = offsets.len / 4;
	uint32_t size = (uint32_t)(out.len / 2), heaviest = 0;
	struct turn *turns = calloc(workers ? workers : 1, sizeof(*turns));

	if (!turns) {
		PyErr_NoMemory();
		goto done;
	}
	if (!whole(&offsets, 4, "offsets") || !whole(&out, 2, "rows"))
		goto done;
	if (!workers || workers >= FREE || skips.len != offsets.len || weights.len != offsets.len) {
		PyErr_SetString(PyExc_ValueError, "offsets, skips and weights are not of one length");
		goto done;
	}
	for (Py_ssize_t place = 0; place < workers; place++) {
		struct turn *turn = &turns[place];

		turn->position = ((const uint32_t *)offsets.buf)[place];
		turn->skip = ((const uint32_t *)skips.buf)[place];
		turn->weight = ((const uint32_t *)weights.buf)[place];
		if (turn->position >= size || !turn->skip || turn->skip >= size || !turn->weight ||
		    turn->weight > 0xFFFFFF) {
			PyErr_Format(PyExc_ValueError, "worker %zd: offset, skip or weight out of range", place);
			goto done;
		}
		if (turn->weight > heaviest)
			heaviest = turn->weight;
	}
	for (uint32_t row = 0; row < size; row++)
		((uint16_t *)out.buf)[row] = FREE;
	take_turns(turns, workers, heaviest, out.buf, size);
	result = Py_NewRef(Py_None);
done:
	free(turns);
	PyBuffer_Release(&offsets);
	PyBuffer_Release(&skips);
	PyBuffer_Release(&weights);
	PyBuffer_Release(&out);
	return result;
}

static int is_dead(uint16_t owner, const uint16_t *dead, Py_ssize_t deaths)
{
	for (Py_ssize_t each = 0; each < deaths; each++)
		if (dead[each] == owner)
			return 1;
	return owner == FREE;
}

/* Give a row (now, and three before) to "now"; whether anything of it changed. */
static int hand_over(uint16_t *row, uint16_t now, const uint16_t *dead, Py_ssize_t deaths)
{
	uint16_t kept[4] = {now, FREE, FREE, FREE};
	int places = 1, changed = 0;

	if (row[0] == now && !deaths) /* most rows of most changes */
		return 0;
	for (int each = 0; each < 4 && places < 4; each++)
		if (row[each] != now && !is_dead(row[each], dead, deaths))
			kept[places++] = row[each];
	for (int each = 0; each < 4; each++)
		changed |= row[each] != kept[each];
	for (int each = 0; each < 4; each++)
		row[each] = kept[each];
	return changed;
}

static PyObject *merge(PyObject *module, PyObject *args)
{
	Py_buffer table, indices, dead, rows;
	PyObject *result = NULL;
	Py_ssize_t changed = 0;

	(void)module;
	if (!PyArg_ParseTuple(args, "y*y*y*w*", &table, &indices, &dead, &rows))
		return NULL;
	Py_ssize_t size = table.len / 2, workers = indices.len / 2;

	if (rows.len != 4 * table.len) {
		PyErr_SetString(PyExc_ValueError, "the table is not of the rows' size");
		goto done;
	}
	for (Py_ssize_t row = 0; row < size; row++) {
		uint16_t place = ((const uint16_t *)table.buf)[row];

		if (place >= workers) {
			PyErr_Format(PyExc_ValueError, "row %zd has no worker", row);
			goto done;
		}
		changed += hand_over((uint16_t *)rows.buf + 4 * row, ((const uint16_t *)indices.buf)[place], dead.buf,
				     dead.len / 2);
	}
	result = PyLong_FromSsize_t(changed);
done:
	PyBuffer_Release(&table);
	PyBuffer_Release(&indices);
	PyBuffer_Release(&dead);
	PyBuffer_Release(&rows);
	return result;
}

/* Put the owners of theirs into a row of ours (now, and three before), as they are old. */
static void take_in(uint16_t *row, const uint16_t *theirs, const uint16_t *dead, Py_ssize_t deaths)
{
	uint16_t kept[4] = {row[0], FREE, FREE, FREE};
	int places = 1;

	for (int age = 0; age < 4; age++) {
		uint16_t pair[2] = {row[age], theirs[age]};

		if (pair[0] > pair[1]) {
			pair[0] = theirs[age];
			pair[1] = row[age];
		}
		for (int each = 0; each < 2; each++) {
			int known = is_dead(pair[each], dead, deaths);

			for (int place = 0; place < places; place++)
				known |= kept[place] == pair[each];
			if (!known && places < 4)
				kept[places++] = pair[each];
		}
	}
	for (int place = 0; place < 4; place++)
		row[place] = kept[place];
}

static PyObject *join(PyObject *module, PyObject *args)
{
	Py_buffer theirs, dead, rows;
	PyObject *result = NULL;

	(void)module;
	if (!PyArg_ParseTuple(args, "y*y*w*", &theirs, &dead, &rows))
		return NULL;
	if (rows.len != theirs.len || rows.len % 8) {
		PyErr_SetString(PyExc_ValueError, "these are not rows of one table");
		goto done;
	}
	for (Py_ssize_t row = 0; row < rows.len / 8; row++)
		take_in((uint16_t *)rows.buf + 4 * row, (const uint16_t *)theirs.buf + 4 * row, dead.buf, dead.len / 2);
	result = Py_NewRef(Py_None);
done:
	PyBuffer_Release(&theirs);
	PyBuffer_Release(&dead);
	PyBuffer_Release(&rows);
	return result;
}

static PyMethodDef methods[] = {
	{"fill", fill, METH_VARARGS, "fill(offsets, skips, weights, rows): give every row to a worker."},
	{"merge", merge, METH_VARARGS, "merge(table, indices, dead, rows) -> rows that changed."},
	{"join", join, METH_VARARGS, "join(theirs, dead, rows): give the rows their history, too."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_rows", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__rows(void)
{
	return PyModule_Create(&definition);
}
