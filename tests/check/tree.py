"""What the checks share: reading a source tree, and reporting as TAP.

A check is a script that takes the root of a tree (default: the tree it lies in) and prints one TAP line
for each thing it looked at. tests/check/selftest shows for each that it notices a planted mistake.
"""
import argparse
import os
import re
import sys

sys.dont_write_bytecode = True


class Report:
    """TAP on stdout: one result per subject, its complaints as comments above it."""

    def __init__(self):
        self.count = 0
        self.bad = 0
        print('TAP version 13')

    def result(self, subject, complaints):
        self.count += 1
        for complaint in complaints:
            print('# %s' % complaint)
        if complaints:
            self.bad += 1
        print('%s %d - %s' % ('not ok' if complaints else 'ok', self.count, subject))

    def skip(self, subject, reason):
        self.count += 1
        print('ok %d - %s # SKIP %s' % (self.count, subject, reason))

    def finish(self):
        if self.count == 0:
            self.result('something to check', ['this tree holds nothing that this check looks at'])
        print('1..%d' % self.count)
        sys.stdout.flush()
        sys.exit(1 if self.bad else 0)


def arguments(description, *options):
    """The command line of a check: [--OPTION VALUE] [ROOT]."""
    parser = argparse.ArgumentParser(description=description)
    for option in options:
        parser.add_argument(option)
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument('root', nargs='?', default=os.path.join(here, '..', '..'))
    return parser.parse_args()


def read(root, path):
    with open(os.path.join(root, path), encoding='utf-8') as file:
        return file.read()


def files(root, folders, endings):
    """Paths below the folders, relative to root and sorted, without build folders."""
    found = []
    for folder in folders:
        for place, names, leaves in os.walk(os.path.join(root, folder)):
            names[:] = sorted(name for name in names
                              if name[0] != '.' and not name.startswith('build'))
            found += [os.path.relpath(os.path.join(place, leaf), root)
                      for leaf in leaves if leaf.endswith(endings)]
    return sorted(found)


COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def without_comments(text, keep_strings=True):
    """C source with each comment blanked out; lines stay where they are."""
    def blank(match):
        token = match.group(0)
        if token[0] != '/':
            return token if keep_strings else '""'
        return re.sub(r'[^\n]', ' ', token)
    return COMMENT_OR_STRING.sub(blank, text)


def line_of(text, position):
    return text.count('\n', 0, position) + 1


def public_headers(root):
    return files(root, ['include/shale'], ('.h',))


def exported_functions(root, header):
    """The names that a header declares with SHALE_API, in order."""
    text = without_comments(read(root, header), keep_strings=False)
    text = re.sub(r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', '', text, flags=re.M)
    names = []
    for declaration in re.findall(r'\bSHALE_API\b([^;{]*)', text):
        match = re.search(r'\b(shale_\w+)\s*\(', declaration)
        names.append(match.group(1) if match else '? in "%s"' % ' '.join(declaration.split()))
    return names
