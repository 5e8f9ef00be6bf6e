from setuptools import find_packages, setup

setup(name="ops_dcnv3", version="0.1.0", packages=find_packages("src"), package_dir={"": "src"})
